/* Descriptor tables: frames that are refused leave no trace, and what the processor reads of them cannot be written. */
#include "attack.h"

const char guest_name[] = "descriptor_frames";

#define DATA 0x00cff3000000ffffUL
#define CODE64 0x00affb000000ffffUL
#define XEN_CODE 0x00af9b000000ffffUL /* DPL 0 */

static s64 set_gdt(const u64 *frames, u32 entries)
{
    return H2(__HYPERVISOR_set_gdt, frames, entries);
}

static s64 update(const void *entry, u64 value)
{
    return H2(__HYPERVISOR_update_descriptor, machine_of(entry), value);
}

static s64 set_ldt(const void *base, u64 entries)
{
    return mmuext(MMUEXT_SET_LDT, (u64)base, entries);
}

static int load_es(u16 selector)
{
    int vector = TRY("movw %0, %%es", ::"r"(selector));
    asm volatile("movw %0, %%es" ::"r"((u16)0));
    return vector;
}

static void lists(void)
{
    u64 *good = table_alloc(), *bad = page_alloc(), frames[14];
    rule("a list with one bad frame installs nothing, and the good ones keep no type: -EINVAL");
    for (int i = 0; i < 14; i++)
        frames[i] = mfn_of(good);
    frames[13] = mfn_of(bad);
    attack("the last of 14 is mapped writable", set_gdt(frames, 14 * 512), -EINVAL);
    twin("the others may be written", page_writable(good));
    check(page_readonly(good) == 0);
    frames[13] = 0xffffff;
    attack("the last of 14 is beyond memory", set_gdt(frames, 14 * 512), -EINVAL);
    twin("the others may be written", page_writable(good));
    check(page_readonly(good) == 0);
    frames[13] = mfn_of(good);
    attack("more entries than there is room for", set_gdt(frames, 14 * 512 + 1), -EINVAL);
    attack("all ones", set_gdt(frames, 0xffffffff), -EINVAL);
    attack("a list that is not mapped", set_gdt((u64 *)0x12345000, 512), -EFAULT);
    twin("14 times the same frame", set_gdt(frames, 14 * 512));
    attack("then it may be written", page_writable(good), -EBUSY);
    attack("then it is a page table", pin(1, good), -EINVAL);
    twin("another table", set_gdt(frames, 0));
    twin("then it may be written", page_writable(good));
}

static void contents(void)
{
    u64 *gdt = table_alloc(), frame = mfn_of(gdt);
    static const struct {
        const char *name;
        u64 value;
        s64 expected;
    } sets[] = {
        {"a call gate to Xen's code", 0xec00UL << 32 | 0xe008UL << 16, -EINVAL},
        {"a call gate to nothing", 0xec00UL << 32, -EINVAL},
        {"an interrupt gate", 0xee00UL << 32 | (u64)FLAT_KERNEL_CS << 16, -EINVAL},
        {"a task state segment", 0x8900UL << 32 | 0x67, -EINVAL},
        {"a local descriptor table", 0x8200UL << 32 | 0xffff, -EINVAL},
        {"code of privilege 0", XEN_CODE, 0},
        {"data of privilege 0", DATA & ~(3UL << 45), 0},
        {"code of both sizes", CODE64 | 1UL << 54, -EINVAL},
        {"conforming code", CODE64 | 1UL << 42, 0},
    };
    check(set_gdt(&frame, 512) == 0);
    rule("no descriptor leads to the hypervisor's privilege: refused, or raised to the guest's");
    for (u64 i = 0; i < ARRAY_SIZE(sets); i++) {
        check(update(&gdt[8], 0) == 0);
        s64 result = update(&gdt[8], sets[i].value);
        printf("  attack: %s: %s", sets[i].name, error_name(result));
        printf(" reads %lx, loaded: %s\n", gdt[8], vector_name(load_es(64 | 3)));
        int code_or_data = gdt[8] >> 44 & 1;
        u64 privilege = gdt[8] >> (code_or_data ? 45 : 16) & 3; /* its own, or what a gate asks of its target */
        stays("nothing there of privilege 0", gdt[8] == 0 || privilege == 3);
    }
    twin("data of privilege 3", update(&gdt[8], DATA));
    load_es(64 | 3);
    twin_runs("loaded");
    rule("descriptors are written one whole at a time, in one's own descriptor pages: -EINVAL");
    attack("not aligned", update((char *)gdt + 68, DATA), -EINVAL);
    attack("in a page table", update((u64 *)kernel_l4, DATA), -EINVAL);
    attack("beyond memory", H2(__HYPERVISOR_update_descriptor, 0xffffffUL << 12, DATA), -EINVAL);
    TRY("movq $0, (%0)", ::"r"(&gdt[8]) : "memory");
    attack_faults("stored directly", 14, 3);
    stays("the descriptor", gdt[8] == DATA);
    twin("by hypercall", update(&gdt[8], 0));
    load_es(0xe008 | 3);
    attack_faults("Xen's part of the table, through ours", 13, 0xe008);
    check(set_gdt(&frame, 0) == 0);
}

static void local_tables(void)
{
    u64 *ldt = page_alloc(), *behind = page_alloc();
    rule("a local table is read by its limit, from pages that nobody can write");
    ldt[511] = DATA, behind[0] = DATA;
    check(behind == ldt + 512);
    check(page_readonly(ldt) == 0);
    twin("a table of 513 entries, its second page writable", set_ldt(ldt, 513));
    load_es(511 << 3 | 7);
    twin_runs("the first page's last entry");
    /* The second page cannot become a descriptor page while it is mapped writable. */
    int vector = load_es(512 << 3 | 7);
    printf("  attack: the second page's first entry: %s(%lx)\n", vector_name(vector), fault.error);
    check(vector == 13 || vector == 14);
    check(page_readonly(behind) == 0);
    load_es(512 << 3 | 7);
    twin_runs("read-only, the same");
    load_es(513 << 3 | 7);
    attack_faults("beyond the limit", 13, 513 << 3 | 4);
    attack("the first page written", page_writable(ldt), -EBUSY);
    attack("the second page written", page_writable(behind), -EBUSY);
    attack("the first page a page table", pin(2, ldt), -EINVAL);
    check(map_page((u64)ldt, 0) == 0);
    printf("  its page unmapped, the first page's last entry: %s\n", vector_name(load_es(511 << 3 | 7)));
    check(page_readonly(ldt) == 0);
    twin("no table", set_ldt(0, 0));
    load_es(511 << 3 | 7);
    attack_faults("an entry of no table", 13, 511 << 3 | 4);
    twin("the first page written", page_writable(ldt));
    twin("the second page written", page_writable(behind));
    attack("8193 entries", set_ldt(ldt, 8193), -EINVAL);
    attack("2^32 entries, which are none in 32 bits", set_ldt(ldt, 1UL << 32), 0);
    attack("a table not aligned to a page", set_ldt((char *)ldt + 8, 1), -EINVAL);
    attack("a table that reaches the hypervisor's range", set_ldt((void *)0xffff7fffffff0000, 8192), -EINVAL);
}

void guest_main(void)
{
    lists();
    contents();
    local_tables();
}
