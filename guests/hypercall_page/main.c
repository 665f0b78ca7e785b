/* A kernel with a hypercall page: what Xen puts there, and that both ways of calling agree. */
#include "guest.h"

const char guest_name[] = "hypercall_page";

static s64 by_syscall(u64 number, u64 a1, u64 a2)
{
    s64 result;
    asm volatile("syscall" : "=a"(result), "+D"(a1), "+S"(a2) : "0"(number) : "rcx", "r11", "memory");
    return result;
}

static int count_filled(const u8 *page)
{
    /* A stub begins with push %rcx; push %r11; mov $number, %eax. */
    int n = 0;
    for (int i = 0; i < 64; i++)
        n += page[i * 32] == 0x51 && page[i * 32 + 1] == 0x41 && page[i * 32 + 2] == 0x53 && page[i * 32 + 3] == 0xb8 &&
             *(const u32 *)(page + i * 32 + 4) == (u32)i;
    return n;
}

static void contents(void)
{
    const u8 *page = (const u8 *)hypercall_page, *iret = page + 32 * __HYPERVISOR_iret;
    printf("stubs with their numbers: %d\n", count_filled(page));
    printf("the iret stub is another: %d\n", iret[0] == 0x51 && iret[3] == 0x50);
    printf("stub 17:");
    for (int i = 0; i < 17; i++)
        printf(" %02x", page[17 * 32 + i]);
    printf("\niret stub:");
    for (int i = 0; i < 14; i++)
        printf(" %02x", iret[i]);
    printf("\n");
}

static void calls(void)
{
    s64 by_page = xen_version(XENVER_version, 0);
    s64 direct = by_syscall(__HYPERVISOR_xen_version, XENVER_version, 0);
    printf("both ways give the version: %d\n", by_page == direct && by_page > 0x40000);
    check(by_page == direct);
    u64 rcx = 0x1111, r11 = 0x2222;
    register u64 held asm("r11") = r11;
    s64 result;
    asm volatile("call hypercall_page + 17 * 32"
                 : "=a"(result), "+c"(rcx), "+r"(held)
                 : "D"(0), "S"(0)
                 : "memory");
    printf("the page keeps rcx and r11: %d %d\n", rcx == 0x1111, held == 0x2222);
    check(rcx == 0x1111 && held == 0x2222);
    u64 flags;
    asm volatile("stc; std; call hypercall_page + 17 * 32; pushfq; popq %0; cld"
                 : "=r"(flags), "=a"(result)
                 : "D"(0), "S"(0)
                 : "memory", "cc");
    printf("flags survive: CF=%lu DF=%lu\n", flags & 1, flags >> 10 & 1);
    expect_result("number 63", hypercall(63, 0, 0, 0, 0, 0), -ENOSYS);
    expect_result("number 1000", by_syscall(1000, 0, 0), -ENOSYS);
    expect_result("number 2^32 + 17", by_syscall((1UL << 32) + 17, 0, 0), -ENOSYS);
}

static void another_page(void)
{
    /* The register 0x40000000 fills any of our frames in the same way. */
    u8 *page = page_alloc();
    u64 frame = mfn_of(page);
    TRY("wrmsr", ::"a"((u32)(frame << 12)), "d"((u32)(frame >> 20)), "c"(0x40000000));
    show_fault("wrmsr 0x40000000");
    printf("stubs there: %d\n", count_filled(page));
    TRY("wrmsr", ::"a"((u32)(frame << 12) | 1), "d"((u32)(frame >> 20)), "c"(0x40000000));
    show_fault("page index 1");
    frame = mfn_of((void *)kernel_l4);
    TRY("wrmsr", ::"a"((u32)(frame << 12)), "d"((u32)(frame >> 20)), "c"(0x40000000));
    show_fault("onto a page table");
}

void guest_main(void)
{
    contents();
    calls();
    another_page();
    TRY("ud2", :); /* and traps return through the page's iret */
    expect_fault("trap and back", 6, 0);
}
