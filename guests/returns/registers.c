/* What a process finds after system calls and exceptions: just what its kernel left in the frame. */
#include "returns.h"

/* Leaves all registers in the order of a frame, rsp, flags, and what its FS and GS lead to. */
USER_ASM(u_calls,
         "1: syscall\n"
         "movq %r15, 0x500000; movq %r14, 0x500008; movq %r13, 0x500010; movq %r12, 0x500018; movq %rbp, 0x500020\n"
         "movq %rbx, 0x500028; movq %r11, 0x500030; movq %r10, 0x500038; movq %r9, 0x500040; movq %r8, 0x500048\n"
         "movq %rax, 0x500050; movq %rcx, 0x500058; movq %rdx, 0x500060; movq %rsi, 0x500068; movq %rdi, 0x500070\n"
         "movq %rsp, 0x500078; pushfq; popq 0x500080\n"
         "movq %fs:0, %rax; movq %rax, 0x500088; movq %gs:0x500108, %rax; movq %rax, 0x500090\n"
         "jmp 1b; int3");
USER_ASM(u_ud2, "ud2; int3");
USER_ASM(u_zero, "divb 0x500110; int3");
USER_ASM(u_privileged, "hlt; int3");
USER_ASM(u_absent, "movq 0x12345678, %rax; int3");

#define FS_WORD 0x1122334455667788UL
#define GS_WORD 0x99aabbccddeeff00UL
#define RF 0x10000UL

static struct regs given;
static u64 kernel_gs_word, stop_at;
static int rounds, wanted, wrong;

static int same(const volatile u64 *words)
{
    int equal = 1;
    for (int i = 0; i < GENERAL; i++)
        equal &= words[i] == ((u64 *)&given)[i];
    return equal;
}

/* New general registers at each trap; other flags, and another stack, now and then. */
static void give(struct regs *r)
{
    static const u64 flags[] = {
        0, 1, X86_EFLAGS_DF, X86_EFLAGS_AC, X86_EFLAGS_ID, 0x8d5, 0x8d5 | X86_EFLAGS_ID | X86_EFLAGS_DF,
    };
    for (int i = 0; i < GENERAL; i++)
        ((u64 *)r)[i] = random_word();
    if (rounds % 16 == 0)
        r->rflags = X86_EFLAGS_IF | flags[rounds / 16 % (int)ARRAY_SIZE(flags)];
    if (rounds % 64 == 0)
        r->rsp = USER_STACK_TOP - random_word() % 64 * 8;
    if (rounds++ == wanted)
        r->rip = stop_at;
    given = *r;
}

static int kernel_frame_is_good(const struct regs *r)
{
    u64 word;
    asm volatile("movq %%gs:0, %0" : "=r"(word));
    return word == kernel_gs_word && r->cs == FLAT_USER_CS && r->ss == FLAT_USER_SS && r->rsp == given.rsp &&
           !((r->rflags ^ given.rflags) & ~(RF | 2));
}

static void on_call(struct regs *r)
{
    if (rounds) {
        wrong += !kernel_frame_is_good(r) || r->rip != USER_CODE + 2 || r->rcx != r->rip || r->r11 != r->rflags;
        wrong += !same(SAVED) || SAVED[15] != given.rsp || (SAVED[16] ^ given.rflags) & ~2UL;
        wrong += SAVED[17] != FS_WORD || SAVED[18] != GS_WORD;
        wrong += vcpu0->evtchn_upcall_mask != 1;
    }
    give(r);
}

/* The process comes back at once: its instruction faults again. */
static void on_fault(struct regs *r)
{
    if (rounds)
        wrong += !kernel_frame_is_good(r) || r->rip != USER_CODE || !same((u64 *)r);
    if (r->vector == 14)
        wrong += vcpu0->cr2 != 0x12345678 || r->error != 4;
    give(r);
    r->error = 0;
}

static void show(const char *label, u64 vector, trap_handler *handler, const char *code, const char *end)
{
    struct regs r;
    user_frame(&r);
    given = r;
    rounds = wrong = 0;
    stop_at = USER_CODE + (u64)(end - code) - 1;
    handlers[vector] = handler;
    process(code, end, &r);
    printf("%s, %d times: %d wrong\n", label, rounds - 1, wrong);
    check(wrong == 0 && user_exit.vector == 3 && user_exit.rip == stop_at + 1);
}

void registers(int times)
{
    wanted = times;
    SAVED[33] = GS_WORD;
    SAVED[34] = 0;
    SAVED[40] = FS_WORD;
    kernel_gs_word = random_word();
    check(xen_set_segment_base(SEGBASE_FS, USER_DATA + 320) == 0);
    check(xen_set_segment_base(SEGBASE_GS_USER, 0) == 0);
    check(xen_set_segment_base(SEGBASE_GS_KERNEL, (u64)&kernel_gs_word) == 0);
    show("system calls", VEC_SYSCALL, on_call, u_calls, u_calls_end);
    show("#UD", 6, on_fault, u_ud2, u_ud2_end);
    show("#DE", 0, on_fault, u_zero, u_zero_end);
    show("#GP", 13, on_fault, u_privileged, u_privileged_end);
    show("#PF", 14, on_fault, u_absent, u_absent_end);
}
