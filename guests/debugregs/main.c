/* Debug registers: by hypercall and by MOV, what is refused, and breakpoints that hit. */
#include "guest.h"

const char guest_name[] = "debugregs";

static s64 set(int reg, u64 value)
{
    return H2(__HYPERVISOR_set_debugreg, reg, value);
}

static u64 get(int reg)
{
    return (u64)H1(__HYPERVISOR_get_debugreg, reg);
}

static u64 target;
extern char here[];

static void hypercalls(void)
{
    printf("at start: dr0=%lx dr6=%lx dr7=%lx\n", get(0), get(6), get(7));
    for (int i = 0; i < 4; i++) {
        check(set(i, 0x1000UL * (u64)(i + 1)) == 0);
        check(get(i) == 0x1000UL * (u64)(i + 1));
    }
    printf("dr0-3 keep what is set: %lx %lx %lx %lx\n", get(0), get(1), get(2), get(3));
    expect_result("non-canonical address", set(0, 1UL << 62), -EPERM);
    expect_result("address in Xen's range", set(0, 0xffff830000000000), -EPERM);
    expect_result("set dr4", set(4, 0), 0);
    expect_result("set dr5", set(5, 0), 0);
    expect_result("set dr8", set(8, 0), -ENODEV);
    printf("4 and 5 are 6 and 7: %lx %lx\n", get(4), get(5));
    printf("get dr8: %s\n", error_name((s64)get(8)));
    expect_result("dr6 with high bits", set(6, 0xffffffff00000000UL), -EINVAL);
    expect_result("dr6 zero", set(6, 0), 0);
    printf("dr6=%lx\n", get(6));
    expect_result("dr6 all low bits", set(6, 0xffffffff), 0);
    printf("dr6=%lx\n", get(6));
    expect_result("dr7 with high bits", set(7, 1UL << 40), -EINVAL);
    expect_result("dr7 with GD", set(7, 0x2000), -EPERM);
    printf("dr7=%lx\n", get(7));
    expect_result("dr7 with an I/O breakpoint", set(7, 0x20002), -EPERM);
    expect_result("dr7 with a code breakpoint of four bytes", set(7, 0xc0002), 0);
    expect_result("dr7 local enable", set(7, 1), 0);
    printf("dr7=%lx\n", get(7));
    expect_result("dr7 zero", set(7, 0), 0);
    printf("dr7=%lx\n", get(7));
}

static void moves(void)
{
    u64 value;
    TRY("movq %0, %%dr0", ::"r"(0x5000UL));
    expect_fault("mov to dr0", -1, 0);
    TRY("movq %%dr0, %0", : "=r"(value));
    expect_fault("mov from dr0", -1, 0);
    printf("dr0=%lx, by hypercall %lx\n", value, get(0));
    TRY("movq %0, %%dr0", ::"r"(1UL << 62));
    show_fault("mov non-canonical to dr0");
    TRY("movq %%dr4, %0", : "=r"(value));
    show_fault("mov from dr4");
    printf("dr4=%lx\n", value);
    TRY("movq %%dr7, %0", : "=r"(value));
    show_fault("mov from dr7");
    printf("dr7=%lx\n", value);
}

static void hits(void)
{
    check(set(6, 0) == 0);
    check(set(0, (u64)&target) == 0);
    check(set(7, 0xd0002) == 0); /* writes of four bytes, global */
    TRY("movl $1, %0", : "=m"(target));
    show_fault("watched write");
    printf("dr6=%lx\n", get(6));
    check(fault.vector == 1);
    check(set(6, 0) == 0);
    TRY("movl %0, %%eax", ::"m"(target) : "eax");
    show_fault("read of it");
    check(set(7, 0) == 0);
    TRY("movl $1, %0", : "=m"(target));
    expect_fault("not watched", -1, 0);
    check(set(1, (u64)here) == 0);
    check(set(7, 8) == 0); /* execution at dr1 */
    TRY("nop\n.globl here\nhere: nop; nop", :);
    show_fault("execution");
    printf("dr6=%lx\n", get(6));
    check(set(7, 0) == 0);
    check(set(6, 0) == 0);
    TRY("pushfq; orl $0x100, (%%rsp); popfq; nop", ::: "cc");
    show_fault("single step");
    printf("dr6=%lx\n", get(6));
    /* A kernel instruction that Xen touches for us (a hypercall's buffer) does not trip a watchpoint. */
    static u64 buffer[4];
    check(set(6, 0) == 0 && set(0, (u64)buffer) == 0 && set(7, 0xd0002) == 0);
    TRY("nop", :);
    xen_version(XENVER_get_features, buffer);
    check(set(7, 0) == 0);
    printf("dr6 after a hypercall wrote there: %lx\n", get(6));
}

void guest_main(void)
{
    hypercalls();
    moves();
    hits();
}
