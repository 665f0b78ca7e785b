/* Descriptor tables: set_gdt, update_descriptor, the LDT, selectors loaded from them, and the failsafe callback. */
#include "guest.h"

const char guest_name[] = "descriptors";

#define DATA32 0x00cff3000000ffffUL /* flat data, DPL 3, accessed */
#define CODE32 0x00cffb000000ffffUL
#define CODE64 0x00affb000000ffffUL

static u64 *gdt, *ldt;

static s64 set_gdt(const u64 *frames, u32 entries)
{
    return H2(__HYPERVISOR_set_gdt, frames, entries);
}

static s64 update(const void *entry, u64 value)
{
    return H2(__HYPERVISOR_update_descriptor, machine_of(entry), value);
}

static void show_load(const char *label, u16 selector)
{
    TRY("movw %0, %%es", ::"r"(selector));
    u16 now;
    asm volatile("movw %%es, %0" : "=r"(now));
    printf("%s (%x): %s", label, selector, vector_name(fault.vector));
    if (fault.vector >= 0)
        printf("(%lx)", fault.error);
    if (fault.vector == 14)
        printf(" cr2 is LDT+%lu", fault.cr2 - (u64)ldt);
    printf(", es=%x\n", now);
    asm volatile("movw %0, %%es" ::"r"((u16)0));
}

static void global_table(void)
{
    u64 frames[16];
    gdt = page_alloc();
    gdt[1] = DATA32;
    gdt[2] = CODE64;
    gdt[3] = CODE32;
    frames[0] = mfn_of(gdt);
    printf("writable page: %s\n", error_name(set_gdt(frames, 512)));
    check(page_readonly(gdt) == 0);
    expect_result("read-only page", set_gdt(frames, 512), 0);
    printf("writable again: %s\n", error_name(page_writable(gdt)));
    show_load("data, index 1", 8 | 3);
    show_load("data, index 1, rpl 0", 8);
    show_load("code, index 2", 16 | 3);
    show_load("empty, index 5", 40 | 3);
    show_load("beyond the table", 0x2000 | 3);
    show_load("Xen's code32", 0xe023);
    show_load("Xen's data", 0xe02b);
    show_load("Xen's code64", 0xe033);
    show_load("Xen's own code", 0xe008 | 3);
    u64 limit;
    u8 ok;
    asm volatile("lsl %2, %0; setz %1" : "=r"(limit), "=q"(ok) : "r"(8UL | 3) : "cc");
    printf("limit of index 1: %lx ok=%d\n", ok ? limit : 0, ok);
    expect_result("none", set_gdt(frames, 0), 0);
    show_load("data, index 1, after", 8 | 3);
    printf("page writable: %s\n", error_name(page_writable(gdt)));
    expect_result("too many entries", set_gdt(frames, 14 * 512 + 1), -EINVAL);
    expect_result("frame list not mapped", set_gdt((void *)0x12345000, 512), -EFAULT);
    frames[0] = 0xffffff;
    expect_result("no such frame", set_gdt(frames, 512), -EINVAL);
    frames[0] = mfn_of((void *)kernel_l4);
    expect_result("a page table", set_gdt(frames, 512), -EINVAL);
    frames[0] = mfn_of(gdt);
    check(page_readonly(gdt) == 0);
    check(set_gdt(frames, 512) == 0);
}

static void contents(void)
{
    static const struct {
        const char *name;
        u64 value;
    } sets[] = {
        {"data, DPL 3", DATA32},
        {"data, DPL 0", DATA32 & ~(3UL << 45)},
        {"data, DPL 1", (DATA32 & ~(3UL << 45)) | 1UL << 45},
        {"code 64, DPL 3", CODE64},
        {"code 64, DPL 0", CODE64 & ~(3UL << 45)},
        {"code, conforming", CODE32 | 1UL << 42},
        {"code, L and D", CODE64 | 1UL << 54},
        {"data, not present", DATA32 & ~(1UL << 47)},
        {"data, expand down", DATA32 | 1UL << 42},
        {"data, base in Xen's range", DATA32 | 0xffUL << 56},
        {"system: LDT", 0x0000e20000000fff},
        {"system: TSS", 0x0000890000000067},
        {"call gate, DPL 3", 0x0000ec000000e033UL << 0},
        {"call gate", (0x12345678UL & 0xffff) | (u64)FLAT_KERNEL_CS << 16 | 0xec00UL << 32 | (0x12345678UL >> 16) << 48},
        {"interrupt gate", (u64)FLAT_KERNEL_CS << 16 | 0xee00UL << 32},
        {"task gate", (u64)8 << 16 | 0xe500UL << 32},
        {"zero", 0},
    };
    char *plain = page_alloc();
    for (u64 i = 0; i < ARRAY_SIZE(sets); i++) {
        s64 result = update(&gdt[8], sets[i].value);
        printf("%s: %s", sets[i].name, error_name(result));
        printf(" reads %lx\n", gdt[8]);
        u64 *fresh = page_alloc(), frame = mfn_of(fresh);
        fresh[8] = sets[i].value;
        check(page_readonly(fresh) == 0);
        u64 own = mfn_of(gdt);
        printf("  in a new table: %s", error_name(set_gdt(&frame, 512)));
        printf(" reads %lx\n", fresh[8]);
        check(set_gdt(&own, 512) == 0);
    }
    expect_result("update in a writable page", update(plain + 8, DATA32), 0);
    printf("reads %lx\n", *(u64 *)(plain + 8));
    expect_result("update in a page table", update((u64 *)kernel_l4 + 3, DATA32), -EINVAL);
    expect_result("update not aligned", update((char *)gdt + 4, DATA32), -EINVAL);
    expect_result("update beyond memory", H2(__HYPERVISOR_update_descriptor, 0xffffff000UL, DATA32), -EINVAL);
    TRY("movq %1, 72(%0)", ::"r"(gdt), "r"(DATA32));
    show_fault("direct write");
    check(update(&gdt[8], DATA32) == 0);
    show_load("index 8", 64 | 3);
}

static s64 set_ldt(const void *base, u64 entries)
{
    struct mmuext_op op = {MMUEXT_SET_LDT, (u64)base, entries};
    return xen_mmuext_op(&op, 1, 0, DOMID_SELF);
}

static void local_table(void)
{
    ldt = page_alloc();
    ldt[0] = DATA32;
    ldt[1] = DATA32 & ~(1UL << 47);
    ldt[2] = DATA32 & ~(3UL << 45);
    expect_result("set, writable page", set_ldt(ldt, 4), 0);
    show_load("index 0 from a writable page", 7);
    check(page_readonly(ldt) == 0);
    expect_result("set, read-only page", set_ldt(ldt, 4), 0);
    show_load("index 0", 7);
    printf("now a descriptor page, writable: %s\n", error_name(page_writable(ldt)));
    show_load("not present", 8 | 7);
    show_load("DPL 0", 16 | 7);
    show_load("empty", 24 | 7);
    show_load("beyond its end", 32 | 7);
    expect_result("update_descriptor", update(&ldt[3], DATA32), 0);
    show_load("updated", 24 | 7);
    expect_result("none", set_ldt(0, 0), 0);
    show_load("index 0, no table", 7);
    printf("page writable: %s\n", error_name(page_writable(ldt)));
    check(page_readonly(ldt) == 0);
    check(set_ldt(ldt, 4) == 0);
}

static int failsafes;
static struct regs failsafe_frame;

static void on_failsafe(struct regs *r)
{
    failsafes++;
    failsafe_frame = *r;
}

static void reload(const char *label, u16 *in)
{
    /* Segments are loaded again when the vcpu is switched back in. */
    u16 out;
    asm volatile("movw %0, %%ds" ::"r"(in[0]));
    asm volatile("movw %0, %%es" ::"r"(in[1]));
    asm volatile("movw %0, %%fs" ::"r"(in[2]));
    asm volatile("movw %0, %%gs" ::"r"(in[3]));
    failsafes = 0;
    update(&gdt[9], DATA32 & ~(1UL << 47));
    sleep_until(system_time() + 2000000);
    asm volatile("movw %%es, %0" : "=r"(out));
    printf("%s: failsafe callbacks=%d", label, failsafes);
    if (failsafes)
        printf(" ds=%lx es=%lx fs=%lx gs=%lx cs=%lx mask saved=%lu", failsafe_selectors[0], failsafe_selectors[1],
               failsafe_selectors[2], failsafe_selectors[3], failsafe_frame.cs & 0xffff,
               failsafe_frame.cs >> 32 & 0xff);
    printf(", es now=%x\n", out);
    for (int i = 0; i < 4; i++)
        in[i] = 0;
    asm volatile("movw %w0, %%ds; movw %w0, %%es; movw %w0, %%fs; movw %w0, %%gs" ::"r"(0));
    update(&gdt[9], DATA32);
}

static void failsafe(void)
{
    u16 selectors[4];
    handlers[VEC_FAILSAFE] = on_failsafe;
    check(update(&gdt[9], DATA32) == 0);
    for (int i = 0; i < 4; i++) {
        static const char *const names[] = {"bad ds", "bad es", "bad fs", "bad gs"};
        memset(selectors, 0, sizeof(selectors));
        selectors[i] = 72 | 3;
        reload(names[i], selectors);
    }
    for (int i = 0; i < 4; i++)
        selectors[i] = 72 | 3;
    reload("all bad", selectors);
    for (int i = 0; i < 4; i++)
        selectors[i] = 64 | 3;
    reload("all good", selectors);
}

void guest_main(void)
{
    global_table();
    contents();
    local_table();
    failsafe();
}
