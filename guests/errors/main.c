/* Every hypercall number with an operation that does not exist, with a bad pointer, and with nothing. */
#include "guest.h"

const char guest_name[] = "errors";

#define BAD 0x12345000UL

static const char *const names[] = {
    "set_trap_table", "mmu_update", "set_gdt", "stack_switch", "set_callbacks", "fpu_taskswitch", "sched_op_compat",
    "platform_op", "set_debugreg", "get_debugreg", "update_descriptor", "11", "memory_op", "multicall",
    "update_va_mapping", "set_timer_op", "event_channel_op_compat", "xen_version", "console_io", "physdev_op_compat",
    "grant_table_op", "vm_assist", "update_va_mapping_otherdomain", "iret", "vcpu_op", "set_segment_base", "mmuext_op",
    "xsm_op", "nmi_op", "sched_op", "callback_op", "xenoprof_op", "event_channel_op", "physdev_op", "hvm_op", "sysctl",
    "domctl", "kexec_op", "tmem_op", "argo_op", "xenpmu_op", "dm_op", "hypfs_op", "43", "44", "45", "46", "47",
    "arch_0 (mca)", "arch_1 (paging_domctl_cont)", "arch_2", "arch_3", "arch_4", "arch_5", "arch_6", "arch_7",
};

/* Calls that do something else than refuse when their arguments are these: shown by other kernels. */
static int skipped(u64 number)
{
    switch (number) {
    case __HYPERVISOR_set_trap_table:
    case __HYPERVISOR_stack_switch:
    case __HYPERVISOR_set_callbacks:
    case __HYPERVISOR_fpu_taskswitch:
    case __HYPERVISOR_set_timer_op:
    case __HYPERVISOR_iret:
    case __HYPERVISOR_xen_version:
        return 1;
    }
    return 0;
}

static void unknown_operations(void)
{
    for (u64 number = 0; number < ARRAY_SIZE(names); number++) {
        if (skipped(number))
            continue;
        printf("%s: op 99: %s", names[number], error_name(hypercall(number, 99, 0, 0, 0, 0)));
        printf(", op 99 bad pointer: %s", error_name(hypercall(number, 99, BAD, BAD, BAD, 0)));
        printf(", op -1: %s\n", error_name(hypercall(number, ~0UL, 1, 0, 0, 0)));
    }
    for (u64 number = 56; number < 70; number++)
        check(hypercall(number, 0, 0, 0, 0, 0) == -ENOSYS);
    expect_result("number 2^31", hypercall(1UL << 31, 0, 0, 0, 0, 0), -ENOSYS);
    expect_result("number -1", hypercall(~0UL, 0, 0, 0, 0, 0), -ENOSYS);
}

static void console(void)
{
    char buffer[16];
    if (!is_domU())
        return;
    /* In a release build Xen's console is not for guests. */
    printf("console write: %s\n", error_name(xen_console_io(CONSOLEIO_write, 5, "text\n")));
    printf("console read: %s\n", error_name(xen_console_io(CONSOLEIO_read, 5, buffer)));
    printf("console operation 2: %s\n", error_name(xen_console_io(2, 5, buffer)));
}

static void assists(void)
{
    for (u64 type = 0; type < 8; type++) {
        printf("vm_assist enable %lu: %s", type, error_name(H2(__HYPERVISOR_vm_assist, VMASST_CMD_enable, type)));
        printf(", disable: %s", error_name(H2(__HYPERVISOR_vm_assist, VMASST_CMD_disable, type)));
        printf(", command 2: %s\n", error_name(H2(__HYPERVISOR_vm_assist, 2, type)));
    }
    printf("vm_assist enable 32: %s\n", error_name(H2(__HYPERVISOR_vm_assist, VMASST_CMD_enable, 32)));
    printf("vm_assist enable 33: %s\n", error_name(H2(__HYPERVISOR_vm_assist, VMASST_CMD_enable, 33)));
    printf("vm_assist enable 64: %s\n", error_name(H2(__HYPERVISOR_vm_assist, VMASST_CMD_enable, 64)));
}

static void physdev(void)
{
    static char zero[64];
    if (!is_domU())
        return;
    for (u32 op = 0; op < 34; op++) {
        memset(zero, 0, sizeof(zero));
        printf("physdev_op %u: %s", op, error_name(xen_physdev_op(op, zero)));
        printf(", bad pointer: %s\n", error_name(xen_physdev_op(op, (void *)BAD)));
    }
}

static void privileged(void)
{
    static char zero[512];
    if (!is_domU())
        return;
    printf("domctl, wrong version: %s\n", error_name(H1(__HYPERVISOR_domctl, zero)));
    *(u32 *)zero = 5, *(u32 *)(zero + 4) = 0x15;
    printf("domctl getdomaininfo: %s\n", error_name(H1(__HYPERVISOR_domctl, zero)));
    memset(zero, 0, sizeof(zero));
    *(u32 *)zero = 3, *(u32 *)(zero + 4) = 0x15;
    printf("sysctl physinfo: %s\n", error_name(H1(__HYPERVISOR_sysctl, zero)));
    *(u32 *)(zero + 4) = 0;
    printf("sysctl, wrong version: %s\n", error_name(H1(__HYPERVISOR_sysctl, zero)));
    *(u32 *)zero = 17, *(u32 *)(zero + 4) = 0x03000000;
    printf("platform_op settime: %s\n", error_name(H1(__HYPERVISOR_platform_op, zero)));
    *(u32 *)(zero + 4) = 0;
    printf("platform_op, wrong version: %s\n", error_name(H1(__HYPERVISOR_platform_op, zero)));
    printf("hvm_op get_param: %s\n", error_name(H2(__HYPERVISOR_hvm_op, 1, zero)));
    printf("xenpmu_op mode_get: %s\n", error_name(H2(__HYPERVISOR_xenpmu_op, 0, zero)));
    printf("dm_op: %s\n", error_name(H3(__HYPERVISOR_dm_op, DOMID_SELF, 0, zero)));
    printf("kexec_op 0: %s\n", error_name(H2(__HYPERVISOR_kexec_op, 0, zero)));
    printf("argo_op 1: %s\n", error_name(hypercall(__HYPERVISOR_argo_op, 1, (u64)zero, 0, 0, 0)));
    printf("hypfs_op 0: %s\n", error_name(hypercall(__HYPERVISOR_hypfs_op, 0, 0, 0, 0, 0)));
    printf("xsm_op: %s\n", error_name(H1(__HYPERVISOR_xsm_op, zero)));
}

static void nmi(void)
{
    struct {
        u64 address, pad;
    } register_nmi = {(u64)nmi_callback, 0};
    expect_result("nmi_op register", H2(__HYPERVISOR_nmi_op, 0, &register_nmi), 0);
    register_nmi.address = 1UL << 62;
    printf("nmi_op register non-canonical: %s\n", error_name(H2(__HYPERVISOR_nmi_op, 0, &register_nmi)));
    expect_result("nmi_op unregister", H2(__HYPERVISOR_nmi_op, 1, 0), 0);
    printf("nmi_op register bad pointer: %s\n", error_name(H2(__HYPERVISOR_nmi_op, 0, BAD)));
}

static void stack(void)
{
    /* The pointer is not looked at before it is needed; the selector is made fit. */
    expect_result("stack_switch, non-canonical", xen_stack_switch(FLAT_KERNEL_SS, 1UL << 62), 0);
    expect_result("stack_switch, odd selector", xen_stack_switch(0x1230, (u64)boot_stack_top), 0);
    expect_result("stack_switch", xen_stack_switch(FLAT_KERNEL_SS, (u64)boot_stack_top), 0);
}

void guest_main(void)
{
    unknown_operations();
    console();
    assists();
    physdev();
    privileged();
    nmi();
    stack();
}
