/* System calls of user mode: 64-bit SYSCALL, compatibility-mode SYSCALL and SYSENTER, int $0x80; frames. */
#include "guest.h"

const char guest_name[] = "syscalls";

USER_ASM(u_syscall, "syscall");
USER_ASM(u_int80, "int $0x80");
USER_ASM(u_sysenter, "sysenter");
/* In a 32-bit code segment. */
USER_ASM(u_syscall32, ".byte 0x0f, 0x05");
USER_ASM(u_int80_32, ".byte 0xcd, 0x80");
USER_ASM(u_many, "movl $3, %ecx; 1: movq %rcx, %rbx; syscall; movq %rbx, %rcx; loop 1b; ud2");

static struct regs fresh(void)
{
    struct regs r;
    user_frame(&r);
    u64 *words = (u64 *)&r;
    for (u64 i = 0; i < 15; i++)
        words[i] = 0x100 + i;
    return r;
}

static void show(const char *label)
{
    u64 offset = user_exit.rip - USER_CODE;
    printf("%s: %s", label, vector_name((int)user_exit.vector));
    if (user_exit.vector == 13)
        printf("(%lx)", user_exit.error);
    printf(" at +%lu cs=%lx ss=%lx mask saved=%lu rflags=%lx\n", offset, user_exit.cs & 0xffff,
           user_exit.ss & 0xffff, user_exit.cs >> 32 & 0xff, user_exit.rflags);
}

static u8 mask_inside;

static void note_mask(struct regs *r)
{
    mask_inside = vcpu0->evtchn_upcall_mask;
    handlers[VEC_SYSCALL] = 0;
    user_exit = *r;
    r->rip = USER_CODE + 0x100; /* an ud2 that ends the run */
    r->rcx = r->rip;
}

static void long_mode(void)
{
    struct regs r = fresh();
    r.rflags |= X86_EFLAGS_CF | X86_EFLAGS_DF;
    run_user(u_syscall, 2, &r);
    show("syscall");
    check(user_exit.vector == VEC_SYSCALL && user_exit.rip == USER_CODE + 2);
    printf("rcx is the place: %d, r11 is rflags: %d, rsp kept: %d\n", user_exit.rcx == USER_CODE + 2,
           user_exit.r11 == user_exit.rflags, user_exit.rsp == USER_STACK_TOP);
    printf("r11=%lx\n", user_exit.r11);
    int kept = 1;
    for (u64 i = 0; i < 15; i++)
        if (i != 6 && i != 11) /* r11 and rcx */
            kept &= ((u64 *)&user_exit)[i] == 0x100 + i;
    printf("other registers kept: %d\n", kept);
    check(kept);
    for (u16 flags = 0; flags < 2; flags++) {
        check(register_callback(CALLBACKTYPE_syscall, flags, syscall_callback) == 0);
        handlers[VEC_SYSCALL] = note_mask;
        r = fresh();
        run_user(u_syscall, 2, &r);
        printf("callback flags %d: mask inside=%d\n", flags, mask_inside);
        check(mask_inside == flags);
    }
}

static int calls;

static void count(struct regs *r)
{
    calls++;
    r->error = VGCF_in_syscall;
    r->rax = 0;
}

static void returns(void)
{
    struct regs r = fresh();
    handlers[VEC_SYSCALL] = count;
    run_user(u_many, (u64)(u_many_end - u_many), &r);
    handlers[VEC_SYSCALL] = 0;
    printf("three calls and back each time: calls=%d, then %s\n", calls, vector_name((int)user_exit.vector));
    check(calls == 3 && user_exit.vector == 6);
}

static void without_callback(void)
{
    struct regs r = fresh();
    H3(__HYPERVISOR_set_callbacks, event_callback, failsafe_callback, 0);
    run_user(u_syscall, 2, &r);
    show("syscall without callback");
    check(user_exit.vector == 6);
    check(register_callback(CALLBACKTYPE_syscall, CALLBACKF_mask_events, syscall_callback) == 0);
}

static void interrupts(void)
{
    struct regs r = fresh();
    run_user(u_int80, 2, &r);
    show("int $0x80 without gate");
    check(set_gate(0x80, 3, FLAT_KERNEL_CS, TRAP_STUB(0x80)) == 0);
    r = fresh();
    run_user(u_int80, 2, &r);
    show("int $0x80");
    printf("rcx kept: %d, r11 kept: %d\n", user_exit.rcx == 0x100 + 11, user_exit.r11 == 0x100 + 6);
    check(user_exit.vector == 0x80);
}

static void compatibility(void)
{
    /* The user stack and code are below 4 GiB, so the flat 32-bit code segment can run them. */
    struct regs r = fresh();
    r.cs = FLAT_USER_CS32;
    run_user(u_int80_32, 2, &r);
    show("32-bit int $0x80");
    r = fresh();
    r.cs = FLAT_USER_CS32;
    run_user(u_syscall32, 2, &r);
    show("32-bit syscall without callback");
    expect_result("register syscall32", register_callback(CALLBACKTYPE_syscall32, 1, syscall32_callback), 0);
    r = fresh();
    r.cs = FLAT_USER_CS32;
    run_user(u_syscall32, 2, &r);
    show("32-bit syscall");
    printf("rsp kept: %d\n", user_exit.rsp == USER_STACK_TOP);
    check(user_exit.vector == VEC_SYSCALL32);
}

void guest_main(void)
{
    user_init();
    long_mode();
    returns();
    without_callback();
    interrupts();
    compatibility();
}
