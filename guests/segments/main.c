/* Segment bases: set_segment_base, FS and GS in kernel and user mode, and what switching between them does. */
#include "guest.h"

const char guest_name[] = "segments";

USER_ASM(u_probe, "movq %fs:0, %rax; movq %gs:0, %rbx; movl %fs, %ecx; movl %gs, %edx; int3");
USER_ASM(u_load, "movl %eax, %fs; movl %eax, %gs; int3");
USER_ASM(u_nothing, "int3");

static u64 areas[4] = {0x1111, 0x2222, 0x3333, 0x4444};
static u64 *user_areas; /* the user data page, as the kernel sees it */

static u64 kernel_fs(void)
{
    u64 v;
    asm volatile("movq %%fs:0, %0" : "=r"(v));
    return v;
}

static u64 kernel_gs(void)
{
    u64 v;
    asm volatile("movq %%gs:0, %0" : "=r"(v));
    return v;
}

static void kernel(void)
{
    expect_result("FS", xen_set_segment_base(SEGBASE_FS, (u64)&areas[0]), 0);
    expect_result("GS_KERNEL", xen_set_segment_base(SEGBASE_GS_KERNEL, (u64)&areas[1]), 0);
    printf("fs:0=%lx gs:0=%lx\n", kernel_fs(), kernel_gs());
    check(kernel_fs() == 0x1111 && kernel_gs() == 0x2222);
    expect_result("GS_USER", xen_set_segment_base(SEGBASE_GS_USER, USER_DATA + 8), 0);
    printf("kernel's gs:0=%lx\n", kernel_gs());
    expect_result("FS, non-canonical", xen_set_segment_base(SEGBASE_FS, 1UL << 62), -EINVAL);
    expect_result("GS_USER, non-canonical", xen_set_segment_base(SEGBASE_GS_USER, 1UL << 62), -EINVAL);
    expect_result("GS_KERNEL, non-canonical", xen_set_segment_base(SEGBASE_GS_KERNEL, 1UL << 62), -EINVAL);
    expect_result("FS, Xen's range", xen_set_segment_base(SEGBASE_FS, 0xffff830000000000), 0);
    expect_result("4", xen_set_segment_base(4, 0), -EINVAL);
    expect_result("GS_USER_SEL 0xe02b", xen_set_segment_base(SEGBASE_GS_USER_SEL, 0xe02b), 0);
    expect_result("GS_USER_SEL bad", xen_set_segment_base(SEGBASE_GS_USER_SEL, 0x1237), 0);
    expect_result("FS", xen_set_segment_base(SEGBASE_FS, (u64)&areas[0]), 0);
}

static struct regs probe(void)
{
    struct regs r;
    user_frame(&r);
    run_user(u_probe, (u64)(u_probe_end - u_probe), &r);
    return user_exit;
}

static void show(const char *label, struct regs r)
{
    printf("%s: %s", label, vector_name((int)r.vector));
    if (r.vector == 3)
        printf(" fs:0=%lx gs:0=%lx fs=%lx gs=%lx", r.rax, r.rbx, r.rcx, r.rdx);
    else
        printf("(%lx) at +%lu", r.error, r.rip - USER_CODE);
    printf("\n");
}

static void user(void)
{
    user_init();
    user_areas = va_of_mfn((*pte_of(USER_DATA) & PTE_ADDR) >> 12);
    for (u64 i = 0; i < 8; i++)
        user_areas[i] = 0xaaa0 + i;
    xen_set_segment_base(SEGBASE_GS_USER_SEL, 0);
    xen_set_segment_base(SEGBASE_GS_USER, USER_DATA + 8);
    xen_set_segment_base(SEGBASE_FS, USER_DATA);
    show("user, FS and GS_USER set", probe());
    printf("kernel again: gs:0=%lx\n", kernel_gs());
    check(user_exit.vector == 3 && user_exit.rax == 0xaaa0 && user_exit.rbx == 0xaaa1);
    check(kernel_gs() == 0x2222);
    xen_set_segment_base(SEGBASE_GS_USER_SEL, 0xe02b);
    show("GS_USER_SEL 0xe02b", probe());
    xen_set_segment_base(SEGBASE_GS_USER_SEL, 0);
    xen_set_segment_base(SEGBASE_GS_USER, USER_DATA + 16);
    show("GS_USER set anew", probe());
    /* User mode loads the selectors itself: the bases become those of the descriptor. */
    struct regs r;
    user_frame(&r);
    r.rax = 0xe02b;
    run_user(u_load, (u64)(u_load_end - u_load), &r);
    show("after loading 0xe02b", probe());
    user_frame(&r);
    r.rax = 0;
    run_user(u_load, (u64)(u_load_end - u_load), &r);
    printf("after loading 0: fs:0 and gs:0 ");
    r = probe();
    printf("%s(%lx) at +%lu\n", vector_name((int)r.vector), r.error, r.rip - USER_CODE);
    printf("kernel's gs:0=%lx\n", kernel_gs());
    check(kernel_gs() == 0x2222);
}

static void kernel_loads(void)
{
    /* A selector load in the kernel clears the base that was set by hypercall. */
    xen_set_segment_base(SEGBASE_FS, (u64)&areas[2]);
    printf("fs:0=%lx\n", kernel_fs());
    u64 base;
    asm volatile("movw %0, %%fs" ::"r"((u16)0xe02b));
    asm volatile("movl $0xc0000100, %%ecx; rdmsr; shlq $32, %%rdx; orq %%rdx, %%rax" : "=a"(base)::"rcx", "rdx");
    printf("FS base after loading 0xe02b: %lx\n", base);
    asm volatile("movw %0, %%fs" ::"r"((u16)0));
    xen_set_segment_base(SEGBASE_FS, (u64)&areas[3]);
    printf("fs:0=%lx\n", kernel_fs());
    /* The bases survive being switched out. */
    sleep_until(system_time() + 2000000);
    printf("after sleeping: fs:0=%lx gs:0=%lx\n", kernel_fs(), kernel_gs());
    check(kernel_fs() == 0x4444 && kernel_gs() == 0x2222);
}

void guest_main(void)
{
    kernel();
    user();
    kernel_loads();
}
