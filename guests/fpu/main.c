/* fpu_taskswitch and #NM, CR0.TS by MOV, exceptions of the x87 and SSE units, and FPU state across switches. */
#include "guest.h"

const char guest_name[] = "fpu";

USER_ASM(u_x87, "fld1; int3");
USER_ASM(u_sse, "pxor %xmm0, %xmm0; int3");

static s64 taskswitch(int set)
{
    return H1(__HYPERVISOR_fpu_taskswitch, set);
}

static u64 cr0(void)
{
    u64 v;
    asm volatile("movq %%cr0, %0" : "=r"(v));
    return v;
}

static int nm;

static void on_nm(struct regs *r)
{
    (void)r;
    nm++;
}

static void task_switched(void)
{
    TRY("fninit", :);
    show_fault("x87 at start");
    expect_result("fpu_taskswitch 1", taskswitch(1), 0);
    printf("TS=%lu\n", cr0() >> 3 & 1);
    TRY("fld1; fstp %%st(0)", :);
    expect_fault("x87 with TS", 7, 0);
    printf("TS in the handler's wake: %lu\n", cr0() >> 3 & 1);
    TRY("fld1; fstp %%st(0)", :);
    show_fault("x87 again: Xen has cleared TS");
    check(taskswitch(1) == 0);
    TRY("pxor %%xmm0, %%xmm0", :);
    expect_fault("SSE with TS", 7, 0);
    check(taskswitch(1) == 0);
    TRY("fwait", :);
    expect_fault("fwait with TS", 7, 0);
    check(taskswitch(1) == 0);
    expect_result("fpu_taskswitch 0", taskswitch(0), 0);
    TRY("fld1; fstp %%st(0)", :);
    expect_fault("x87 without TS", -1, 0);
    expect_result("fpu_taskswitch 7", taskswitch(7), 0);
    TRY("fld1; fstp %%st(0)", :);
    expect_fault("x87 with TS", 7, 0);
    TRY("movq %0, %%cr0", ::"r"(cr0() | 8));
    TRY("fld1; fstp %%st(0)", :);
    expect_fault("TS by mov to cr0", 7, 0);
    TRY("movq %0, %%cr0", ::"r"(cr0() | 8));
    TRY("clts", :);
    TRY("fld1; fstp %%st(0)", :);
    expect_fault("after clts", -1, 0);
    handlers[7] = on_nm;
    check(taskswitch(1) == 0);
    asm volatile("fld1; fstp %st(0)");
    printf("#NM returns to the instruction: handler ran %d\n", nm);
    handlers[7] = 0;
    check(nm == 1);
}

static void from_user(void)
{
    struct regs r;
    user_init();
    check(taskswitch(1) == 0);
    user_frame(&r);
    run_user(u_x87, (u64)(u_x87_end - u_x87), &r);
    printf("user x87 with TS: %s at +%lu\n", vector_name((int)user_exit.vector), user_exit.rip - USER_CODE);
    user_frame(&r);
    run_user(u_sse, (u64)(u_sse_end - u_sse), &r);
    printf("user SSE after it: %s\n", vector_name((int)user_exit.vector));
    check(taskswitch(0) == 0);
}

static void exceptions(void)
{
    u16 control = 0x33b; /* zero divide not masked */
    u16 normal = 0x37f;
    TRY("fninit; fldcw %0; fldz; fld1; fdiv %%st(1), %%st; fwait", ::"m"(control));
    printf("x87 zero divide: %s\n", vector_name(fault.vector));
    check(fault.vector == 16);
    asm volatile("fnclex; fninit; fldcw %0" ::"m"(normal));
    /* Unmasked SSE exceptions are left out: QEMU's emulated processor does not raise them. */
}

static void state(void)
{
    /* x87 and SSE registers survive sleeping. */
    u64 in[2] = {0x0123456789abcdef, 0xfedcba9876543210}, out[2] = {0, 0};
    u64 bits = 0x3ff8000000000000, bits_back = 0;
    asm volatile("fninit; fldl %1; movups %0, %%xmm5" ::"m"(in), "m"(bits));
    sleep_until(system_time() + 2000000);
    asm volatile("movups %%xmm5, %0; fstpl %1" : "=m"(out), "=m"(bits_back));
    printf("SSE kept: %d, x87 kept: %d\n", out[0] == in[0] && out[1] == in[1], bits_back == bits);
    check(out[0] == in[0] && out[1] == in[1] && bits_back == bits);
    u16 cw = 0, want = 0x27f;
    u32 mxcsr = 0x1fc0, mxcsr_back = 0;
    asm volatile("fldcw %0; ldmxcsr %1" ::"m"(want), "m"(mxcsr));
    sleep_until(system_time() + 2000000);
    asm volatile("fnstcw %0; stmxcsr %1" : "=m"(cw), "=m"(mxcsr_back));
    printf("control words kept: %x %x\n", cw, mxcsr_back);
}

static void at_start(void)
{
    u16 cw = 0;
    u32 mxcsr = 0;
    asm volatile("fnstcw %0; stmxcsr %1" : "=m"(cw), "=m"(mxcsr));
    printf("at start: TS=%lu fcw=%x mxcsr=%x\n", cr0() >> 3 & 1, cw, mxcsr);
}

void guest_main(void)
{
    at_start();
    task_switched();
    from_user();
    exceptions();
    state();
}
