/* CPUID as the guest kernel asks it, plainly and by Xen's emulation prefix, and what user mode may do. */
#include "guest.h"

const char guest_name[] = "cpuid";

USER_ASM(u_forced, "movl $0x40000000, %eax; xorl %ecx, %ecx; ud2; .ascii \"xen\"; cpuid; int3");

struct leaf {
    u32 a, b, c, d;
};

static struct leaf forced(u32 number, u32 sub)
{
    struct leaf l = {number, 0, sub, 0};
    TRY("ud2; .ascii \"xen\"; cpuid", : "+a"(l.a), "=b"(l.b), "+c"(l.c), "=d"(l.d));
    check(fault.vector == -1);
    return l;
}

static void text(const char *label, u32 a, u32 b, u32 c)
{
    u32 words[4] = {a, b, c, 0};
    printf("%s: %s\n", label, (char *)words);
}

static void hypervisor_leaves(void)
{
    struct leaf l = forced(0x40000000, 0);
    text("signature", l.b, l.c, l.d);
    printf("highest hypervisor leaf: %x\n", l.a);
    l = forced(0x40000001, 0);
    printf("version matches the hypercall: %d\n", l.a == (u64)xen_version(XENVER_version, 0));
    l = forced(0x40000002, 0);
    printf("hypercall pages: %u, msr %x\n", l.a, l.b);
    printf("features: ecx=%x edx=%x\n", l.c, l.d);
    l = forced(0x40000003, 0);
    printf("time leaf: mode=%u\n", l.b);
    l = forced(0x40000004, 0);
    printf("hvm leaf for a PV guest: %x %x %x %x\n", l.a, l.b, l.c, l.d);
    l = forced(0x40000005, 0);
    /* ebx is the width of the machine's addresses. */
    printf("pv leaf: eax=%x ecx=%x edx=%x\n", l.a, l.c, l.d);
    l = forced(0x40000006, 0);
    printf("beyond: %x %x %x %x\n", l.a, l.b, l.c, l.d);
}

static void features(void)
{
    struct leaf one = forced(1, 0), ext = forced(0x80000001, 0), seven = forced(7, 0);
    static const struct {
        const char *name;
        u8 bit;
    } d[] = {{"FPU", 0},  {"VME", 1},   {"DE", 2},   {"PSE", 3},  {"TSC", 4},   {"MSR", 5},   {"PAE", 6},
             {"CX8", 8},  {"APIC", 9},  {"MTRR", 12}, {"PGE", 13},   {"CMOV", 15}, {"PAT", 16}, {"PSE36", 17},
             {"MCE", 7}, {"MCA", 14}, {"DS", 21},  {"FXSR", 24}, {"SSE2", 26}},
      c[] = {{"MONITOR", 3}, {"VMX", 5}, {"PDCM", 15}, {"PCID", 17}, {"X2APIC", 21}, {"TSC_DEADLINE", 24},
             {"HYPERVISOR", 31}},
      e[] = {{"SYSCALL", 11}, {"NX", 20}, {"1GB", 26}, {"LM", 29}},
      f[] = {{"SVM", 2}};
    /* Only what Xen decides for every PV guest; the processor's own features are not compared. */
    printf("1.edx:");
    for (u64 i = 0; i < ARRAY_SIZE(d); i++)
        printf(" %s=%u", d[i].name, one.d >> d[i].bit & 1);
    printf("\n1.ecx:");
    for (u64 i = 0; i < ARRAY_SIZE(c); i++)
        printf(" %s=%u", c[i].name, one.c >> c[i].bit & 1);
    printf("\n80000001.edx:");
    for (u64 i = 0; i < ARRAY_SIZE(e); i++)
        printf(" %s=%u", e[i].name, ext.d >> e[i].bit & 1);
    printf("\n80000001.ecx:");
    for (u64 i = 0; i < ARRAY_SIZE(f); i++)
        printf(" %s=%u", f[i].name, ext.c >> f[i].bit & 1);
    printf("\n7.ebx: SMEP=%u SMAP=%u INVPCID=%u MPX=%u\n", seven.b >> 7 & 1, seven.b >> 20 & 1, seven.b >> 10 & 1,
           seven.b >> 14 & 1);
}

/* The prefix and its cpuid at the end of a page, behind which nothing is mapped. */
static void cut_short(void)
{
    static const char code[] = "\x0f\x0b" "xen\x0f\xa2";
    char *page = page_alloc(), *gone = page_alloc();
    u64 frame = mfn_of(page) << 12, behind = mfn_of(gone) << 12;
    check(gone == page + PAGE_SIZE);
    check(map_page((u64)gone, 0) == 0);
    for (u64 size = 2; size < sizeof(code); size++) {
        u64 at = (u64)gone - size;
        check(map_page((u64)page, frame | PTE_P | PTE_RW | PTE_US) == 0);
        memcpy((void *)at, code, size);
        TRY("jmp *%%rsi", ::"S"(at) : "rax", "rbx", "rcx", "rdx");
        printf("%lu bytes of it: %s", size, vector_name(fault.vector));
        if (fault.vector == 14)
            printf(" %lx at %ld", fault.error, (s64)(fault.cr2 - (u64)gone));
        printf(", rip at %ld\n", (s64)(fault.rip - at));
    }
    check(map_page((u64)gone, behind | PTE_P | PTE_RW | PTE_US) == 0);
}

static void forms(void)
{
    struct leaf l = {0, 0, 0, 0};
    TRY("cpuid", : "+a"(l.a), "=b"(l.b), "+c"(l.c), "=d"(l.d));
    show_fault("plain cpuid");
    struct leaf m = forced(0, 0);
    printf("same vendor as by the prefix: %d\n", l.b == m.b && l.c == m.c && l.d == m.d);
    TRY("ud2; .ascii \"xem\"; cpuid", ::: "rax", "rbx", "rcx", "rdx");
    expect_fault("a wrong prefix is just ud2", 6, 0);
    TRY("ud2; .ascii \"xen\"; nop", :);
    show_fault("the prefix before a nop");
    TRY("ud2; .ascii \"xen\"; rdtsc", ::: "rax", "rdx");
    show_fault("the prefix before rdtsc");
    cut_short();
    struct regs r;
    user_init();
    user_frame(&r);
    run_user(u_forced, (u64)(u_forced_end - u_forced), &r);
    printf("prefix in user mode: %s at +%lu\n", vector_name((int)user_exit.vector), user_exit.rip - USER_CODE);
    if (user_exit.vector == 3)
        text("signature", (u32)user_exit.rbx, (u32)user_exit.rcx, (u32)user_exit.rdx);
}

void guest_main(void)
{
    hypervisor_leaves();
    features();
    forms();
}
