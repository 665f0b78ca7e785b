/* Exceptions raised in user mode: error codes with the user bit, frames, and the stack that is used. */
#include "guest.h"

const char guest_name[] = "user_exceptions";

USER_ASM(u_div, "xorl %ecx, %ecx; divl %ecx");
USER_ASM(u_int3, "int3");
USER_ASM(u_int4, "int $4");
USER_ASM(u_int13, "int $13");
USER_ASM(u_int14, "int $14");
USER_ASM(u_int80, "int $0x80");
USER_ASM(u_ud2, "ud2");
USER_ASM(u_tf, "pushfq; orl $0x100, (%rsp); popfq; nop; nop");
USER_ASM(u_read, "movq 0x12345678, %rax");
USER_ASM(u_write, "movq %rax, 0x12345678");
USER_ASM(u_exec, "movl $0x12345678, %eax; jmp *%rax");
USER_ASM(u_kernel_read, "movq 0xffffffff80000000, %rax");
USER_ASM(u_kernel_write, "movq %rax, 0xffffffff80000000");
USER_ASM(u_m2p, "movabsq 0xffff800000000000, %rax");
USER_ASM(u_noncanonical, "movabsq 0x4000000000000000, %rax");
USER_ASM(u_hlt, "hlt");
USER_ASM(u_cli, "cli");
USER_ASM(u_in, "inb $0x80, %al");
USER_ASM(u_out, "outb %al, $0x80");
USER_ASM(u_rdmsr, "movl $0xc0000080, %ecx; rdmsr");
USER_ASM(u_cr0, "movq %cr0, %rax");
USER_ASM(u_cr3, "movq %rax, %cr3");
USER_ASM(u_clts, "clts");
USER_ASM(u_invlpg, "invlpg (%rax)");
USER_ASM(u_lgdt, "lgdt (%rsp)");
USER_ASM(u_ltr, "ltr %ax");
USER_ASM(u_swapgs, "swapgs");
USER_ASM(u_sysret, "sysretq");
USER_ASM(u_badseg, "movl $0x1237, %eax; movl %eax, %ds");
USER_ASM(u_ro, "movb $1, 0x500000");
USER_ASM(u_nx, "movl $0x500000, %eax; jmp *%rax");

#define RUN(name, vector, error) run(#name, name, name##_end, vector, error)

static void run(const char *name, const char *code, const char *end, int vector, u64 error)
{
    struct regs r;
    user_frame(&r);
    run_user(code, (u64)(end - code), &r);
    printf("%s: %s(%lx)", name + 2, vector_name((int)user_exit.vector), user_exit.error);
    if (user_exit.rip - USER_CODE < PAGE_SIZE)
        printf(" at +%lu", user_exit.rip - USER_CODE);
    else if (user_exit.rip < 1UL << 32)
        printf(" at %lx", user_exit.rip);
    if (user_exit.vector == 14)
        printf(" cr2=%lx", user_exit_cr2);
    printf("\n");
    check((int)user_exit.vector == vector && user_exit.error == error);
}

static void user_page(u64 va, u64 flags)
{
    u64 *pte = pte_of(va);
    check(set_entry(pte, (*pte & PTE_ADDR) | flags) == 0);
    mmuext(MMUEXT_TLB_FLUSH_LOCAL, 0, 0);
}

static void plain(void)
{
    RUN(u_div, 0, 0);
    printf("frame: cs=%lx ss=%lx IF=%d mask=%d\n", user_exit.cs & 0xffff, user_exit.ss & 0xffff,
           !!(user_exit.rflags & X86_EFLAGS_IF), (int)(user_exit.cs >> 32 & 0xff));
    RUN(u_tf, 1, 0);
    RUN(u_int3, 3, 0);
    RUN(u_int4, 4, 0);
    RUN(u_ud2, 6, 0);
    RUN(u_int13, 13, 13 * 8 + 2);
    RUN(u_int14, 13, 14 * 8 + 2);
    RUN(u_int80, 13, 0x80 * 8 + 2);
}

static void memory(void)
{
    RUN(u_read, 14, 4);
    RUN(u_write, 14, 6);
    RUN(u_exec, 14, 0x14);
    RUN(u_kernel_read, 14, 4);
    RUN(u_kernel_write, 14, 6);
    RUN(u_m2p, 14, 4);
    RUN(u_noncanonical, 13, 0);
    user_page(USER_DATA, PTE_P | PTE_US);
    RUN(u_ro, 14, 7);
    user_page(USER_DATA, PTE_P | PTE_RW | PTE_US | PTE_NX);
    RUN(u_nx, 14, 0x15);
    user_page(USER_DATA, PTE_P | PTE_RW);
    RUN(u_ro, 6, 0); /* Xen itself adds the user bit, so nothing keeps user mode out */
    user_page(USER_DATA, PTE_P | PTE_RW | PTE_US);
}

static void privileged(void)
{
    RUN(u_hlt, 13, 0);
    RUN(u_cli, 13, 0);
    RUN(u_in, 13, 0);
    RUN(u_out, 13, 0);
    RUN(u_rdmsr, 13, 0);
    RUN(u_cr0, 13, 0);
    RUN(u_cr3, 13, 0);
    RUN(u_clts, 13, 0);
    RUN(u_invlpg, 13, 0);
    RUN(u_lgdt, 13, 0);
    RUN(u_ltr, 13, 0);
    RUN(u_swapgs, 13, 0);
    RUN(u_sysret, 13, 0);
    RUN(u_badseg, 13, 0x1234);
}

void guest_main(void)
{
    user_init();
    plain();
    memory();
    privileged();
}
