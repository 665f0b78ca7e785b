/* Addresses that no processor takes, or that are the hypervisor's: refused or harmless wherever a guest may give one. */
#include "attack.h"

const char guest_name[] = "canonical";

static const struct {
    const char *name;
    u64 address;
} bad[] = {
    {"2^47", 1UL << 47},
    {"2^62", 1UL << 62},
    {"the last below the upper half", 0xffff7fffffffffff},
    {"the hypervisor's first", 0xffff800000000000},
    {"the hypervisor's last", 0xffff87ffffffffff},
};

static void addresses(const char *what, s64 (*go)(u64), u64 fine)
{
    char label[96];
    for (u64 i = 0; i < ARRAY_SIZE(bad); i++) {
        snprintf(label, sizeof(label), "%s, %s", what, bad[i].name);
        printf("  %s: %s\n", label, error_name(go(bad[i].address)));
    }
    snprintf(label, sizeof(label), "%s, a good one", what);
    twin(label, go(fine));
}

static s64 callback(u64 address)
{
    return register_callback(CALLBACKTYPE_failsafe, 0, (void *)address);
}
static s64 callback_syscall32(u64 address)
{
    return register_callback(CALLBACKTYPE_syscall32, 0, (void *)address);
}
static s64 callback_sysenter(u64 address)
{
    return register_callback(CALLBACKTYPE_sysenter, 0, (void *)address);
}
static s64 callback_nmi(u64 address)
{
    return register_callback(CALLBACKTYPE_nmi, 0, (void *)address);
}
static s64 set_callbacks(u64 address)
{
    return H3(__HYPERVISOR_set_callbacks, event_callback, address, syscall_callback);
}
static s64 trap(u64 address)
{
    return set_gate(0x60, 0, FLAT_KERNEL_CS, address);
}
static s64 invlpg_local(u64 address)
{
    return mmuext(MMUEXT_INVLPG_LOCAL, address, 0);
}
static s64 invlpg_all(u64 address)
{
    return mmuext(MMUEXT_INVLPG_ALL, address, 0);
}
static s64 fs_base(u64 address)
{
    s64 result = xen_set_segment_base(SEGBASE_FS, address);
    xen_set_segment_base(SEGBASE_FS, 0);
    return result;
}
static s64 gs_user_base(u64 address)
{
    s64 result = xen_set_segment_base(SEGBASE_GS_USER, address);
    xen_set_segment_base(SEGBASE_GS_USER, 0);
    return result;
}
static s64 gs_kernel_base(u64 address)
{
    s64 result = xen_set_segment_base(SEGBASE_GS_KERNEL, address);
    xen_set_segment_base(SEGBASE_GS_KERNEL, 0);
    return result;
}
static s64 ldt(u64 address)
{
    s64 result = mmuext(MMUEXT_SET_LDT, address & PAGE_MASK, 1);
    check(mmuext(MMUEXT_SET_LDT, 0, 0) == 0);
    return result;
}
static s64 breakpoint(u64 address)
{
    s64 result = H2(__HYPERVISOR_set_debugreg, 0, address);
    check(H2(__HYPERVISOR_set_debugreg, 0, 0) == 0);
    return result;
}
static char *mapped;

static s64 va_mapping(u64 address)
{
    return xen_update_va_mapping(address, mfn_of(mapped) << 12 | PTE_P, 0);
}
static s64 runstate(u64 address)
{
    struct {
        u64 address;
    } area = {address};
    return xen_vcpu_op(VCPUOP_register_runstate_memory_area, 0, &area);
}
static s64 time_area(u64 address)
{
    struct {
        u64 address;
    } area = {address};
    return xen_vcpu_op(VCPUOP_register_vcpu_time_memory_area, 0, &area);
}
static s64 version_buffer(u64 address)
{
    return xen_version(XENVER_extraversion, (void *)address);
}
static s64 update_list(u64 address)
{
    return xen_mmu_update((void *)address, 1, 0, DOMID_SELF);
}
static s64 multicall_list(u64 address)
{
    return xen_multicall((void *)address, 1);
}

static s64 write_msr(u32 msr, u64 value)
{
    TRY("wrmsr", ::"c"(msr), "a"((u32)value), "d"((u32)(value >> 32)));
    return fault.vector < 0 ? 0 : -fault.vector * 100;
}
static s64 msr_fs(u64 address)
{
    s64 result = write_msr(0xc0000100, address);
    write_msr(0xc0000100, 0);
    return result;
}
static s64 msr_kernel_gs(u64 address)
{
    s64 result = write_msr(0xc0000102, address);
    write_msr(0xc0000102, 0);
    return result;
}

void guest_main(void)
{
    static char area[4096] __attribute__((aligned(64)));
    static u64 buffer[16] __attribute__((aligned(64)));
    static struct mmu_update update;
    static struct multicall_entry call;
    u64 code = (u64)guest_main, data = (u64)area, list = (u64)buffer;
    rule("a callback's address is canonical, -EINVAL, but for the old set_callbacks; elsewhere its use just faults");
    addresses("failsafe callback", callback, (u64)failsafe_callback);
    addresses("syscall32 callback", callback_syscall32, (u64)syscall32_callback);
    addresses("sysenter callback", callback_sysenter, (u64)sysenter_callback);
    addresses("nmi callback", callback_nmi, (u64)nmi_callback);
    addresses("set_callbacks", set_callbacks, (u64)failsafe_callback);
    addresses("trap table", trap, code);
    rule("a flush of any address is harmless");
    addresses("INVLPG_LOCAL", invlpg_local, code);
    addresses("INVLPG_ALL", invlpg_all, code);
    rule("a segment's base is canonical: -EINVAL, and #GP (-1300) by WRMSR");
    addresses("FS base", fs_base, data);
    addresses("GS user base", gs_user_base, data);
    addresses("GS kernel base", gs_kernel_base, data);
    addresses("FS base by WRMSR", msr_fs, data);
    addresses("kernel GS base by WRMSR", msr_kernel_gs, data);
    rule("no descriptor table and no breakpoint lies in the hypervisor's range");
    addresses("LDT", ldt, data);
    addresses("breakpoint", breakpoint, code);
    rule("no page table entry is looked up there: -EINVAL");
    mapped = page_alloc();
    addresses("update_va_mapping", va_mapping, (u64)mapped);
    rule("registered areas and lists are the guest's own memory");
    addresses("runstate area", runstate, data);
    addresses("time area", time_area, data);
    addresses("version text", version_buffer, list);
    update = (struct mmu_update){mfn_of(area) << 12 | MMU_MACHPHYS_UPDATE, m2p[mfn_of(area)]};
    addresses("update list", update_list, (u64)&update);
    call.op = __HYPERVISOR_xen_version;
    addresses("multicall list", multicall_list, (u64)&call);
}
