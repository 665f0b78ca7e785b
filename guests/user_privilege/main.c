/* User mode has none of what the hypervisor does for the kernel: no hypercall, no privileged instruction, no port. */
#include "attack.h"

const char guest_name[] = "user_privilege";

#define TABLE 0x700000UL
#define GP 13
#define UD 6

USER_ASM(u_cli, "cli");
USER_ASM(u_sti, "sti");
USER_ASM(u_hlt, "hlt");
USER_ASM(u_clts, "clts");
USER_ASM(u_lmsw, "lmsw %ax");
USER_ASM(u_get_cr0, "movq %cr0, %rax");
USER_ASM(u_set_cr0, "movq %rax, %cr0");
USER_ASM(u_get_cr3, "movq %cr3, %rax");
USER_ASM(u_set_cr3, "movq %rax, %cr3");
USER_ASM(u_set_cr4, "movq %rax, %cr4");
USER_ASM(u_get_dr7, "movq %dr7, %rax");
USER_ASM(u_set_dr0, "movq %rax, %dr0");
USER_ASM(u_rdmsr, "movl $0xc0000080, %ecx; rdmsr");
USER_ASM(u_wrmsr, "movl $0xc0000100, %ecx; wrmsr");
USER_ASM(u_lgdt, "lgdt (%rsp)");
USER_ASM(u_lidt, "lidt (%rsp)");
USER_ASM(u_lldt, "lldt %ax");
USER_ASM(u_ltr, "ltr %ax");
USER_ASM(u_invlpg, "invlpg (%rsp)");
USER_ASM(u_swapgs, "swapgs");
USER_ASM(u_sysret, "sysretq");
USER_ASM(u_int82, "int $0x82");
USER_ASM(u_in, "inb $0x80, %al; int3");
USER_ASM(u_out, "outb %al, $0x80; int3");
USER_ASM(u_popf, "pushq $0x3202; popfq; pushfq; popq %rax; int3");
USER_ASM(u_syscall, "syscall; int3");
USER_ASM(u_store, "movq %rax, (%rdi); int3");
USER_ASM(u_bts, "lock btsq $9, (%rdi); int3");
USER_ASM(u_read, "movq (%rdi), %rax; int3");
USER_ASM(u_iret, "pushq $0xe02b; pushq %rsp; pushq $0x202; pushq $0xe030; pushq $0x400000; iretq");
USER_ASM(u_ss, "movw $0xe028, %ax; movw %ax, %ss");
USER_ASM(u_call_gate, "lcall *(%rsp)");

static struct regs frame;

static int run(const char *code, u64 size)
{
    struct regs r = frame;
    return run_user(code, size, &r);
}
#define RUN(code) run(code, (u64)(code##_end - code))

static void instructions(void)
{
    static const struct {
        const char *name, *code, *end;
    } all[] = {
#define ONE(name) {#name, u_##name, u_##name##_end}
        ONE(cli), ONE(sti), ONE(hlt), ONE(clts), ONE(lmsw), ONE(get_cr0), ONE(set_cr0), ONE(get_cr3), ONE(set_cr3),
        ONE(set_cr4), ONE(get_dr7), ONE(set_dr0), ONE(rdmsr), ONE(wrmsr), ONE(lgdt), ONE(lidt), ONE(lldt), ONE(ltr),
        ONE(invlpg), ONE(swapgs), ONE(sysret), ONE(int82),
    };
    rule("a privileged instruction of user mode is the guest kernel's to handle: #GP");
    for (u64 i = 0; i < ARRAY_SIZE(all); i++) {
        user_frame(&frame);
        int vector = run(all[i].code, (u64)(all[i].end - all[i].code));
        printf("  attack: %s: %s(%lx), from user mode %d\n", all[i].name, vector_name(vector),
               vector == GP ? user_exit.error : 0, (user_exit.cs & 3) == 3);
        check(vector == GP);
    }
    TRY("movq %%cr0, %%rax", ::: "rax");
    twin_runs("the kernel reads CR0");
    TRY("clts", :);
    twin_runs("the kernel clears TS");
}

static s64 iopl(u32 level)
{
    return xen_physdev_op(PHYSDEVOP_set_iopl, &level);
}

static void ports(void)
{
    static u8 bitmap[16384];
    struct physdev_set_iobitmap allowed = {bitmap, 65536}, none = {0, 0};
    rule("ports are user mode's only by an I/O privilege level of 3, or by the bitmap that the kernel set: #GP");
    user_frame(&frame);
    for (u32 level = 0; level <= 3; level++) {
        char label[48];
        check(iopl(level) == 0);
        snprintf(label, sizeof(label), "in, level %u", level);
        if (level < 3)
            attack(label, RUN(u_in), GP);
        else
            twin_is(label, RUN(u_in), 3);
        snprintf(label, sizeof(label), "out, level %u", level);
        if (level < 3)
            attack(label, RUN(u_out), GP);
        else
            twin_is(label, RUN(u_out), 3);
    }
    attack("level 4", iopl(4), -EINVAL);
    check(iopl(0) == 0);
    memset(bitmap, 0xff, sizeof(bitmap));
    check(xen_physdev_op(PHYSDEVOP_set_iobitmap, &allowed) == 0);
    attack("in, the bitmap forbids", RUN(u_in), GP);
    bitmap[0x80 / 8] &= (u8)~1;
    twin_is("in, the bitmap allows", RUN(u_in), 3);
    allowed.nr_ports = 65537;
    attack("a bitmap of too many ports", xen_physdev_op(PHYSDEVOP_set_iobitmap, &allowed), -EINVAL);
    check(xen_physdev_op(PHYSDEVOP_set_iobitmap, &none) == 0);
    attack("in, no bitmap", RUN(u_in), GP);
    twin_is("popf with IOPL 3", RUN(u_popf), 3);
    stays("no level is gained", !(user_exit.rax & X86_EFLAGS_IOPL));
}

static void hypercalls(void)
{
    static const u32 numbers[] = {
        __HYPERVISOR_mmu_update, __HYPERVISOR_iret, __HYPERVISOR_sched_op, __HYPERVISOR_multicall, 63,
    };
    rule("no number makes a system call of user mode a hypercall: the kernel's callback gets it");
    for (u64 i = 0; i < ARRAY_SIZE(numbers); i++) {
        char label[48];
        user_frame(&frame);
        frame.rax = numbers[i], frame.rdi = SHUTDOWN_crash;
        snprintf(label, sizeof(label), "syscall, rax %u", numbers[i]);
        attack(label, RUN(u_syscall), VEC_SYSCALL);
        stays("rax as it was", user_exit.rax == numbers[i]);
    }
    twin("the kernel's", mmuext(MMUEXT_TLB_FLUSH_LOCAL, 0, 0));
}

static void page_tables(void)
{
    u64 *table = table_alloc();
    check(H2(__HYPERVISOR_vm_assist, VMASST_CMD_enable, 2) == 0);
    check(pin(1, table) == 0);
    map_in(kernel_l4, TABLE, mfn_of(table) << 12 | PTE_P | PTE_US);
    user_frame(&frame);
    frame.rdi = TABLE;
    rule("stores into page tables are carried out for the kernel, not for user mode: #PF");
    frame.rax = mfn_of(table) << 12 | PTE_P;
    attack("a good entry", RUN(u_store), 14);
    printf("    error code %lx\n", user_exit.error);
    attack("a locked bit set", RUN(u_bts), 14);
    stays("the table", table[0] == 0);
    twin_is("a read", RUN(u_read), 3);
    TRY("movq %1, (%0)", ::"r"(TABLE), "r"(frame.rax) : "memory");
    twin_runs("the kernel's store of the same entry");
    stays("is done", (table[0] & PTE_ADDR) == (frame.rax & PTE_ADDR));
}

static void selectors(void)
{
    rule("no selector raises user mode's privilege: #GP, or user mode as before");
    user_frame(&frame);
    int vector = RUN(u_iret);
    printf("  attack: iret to selector e030: %s\n", vector_name(vector));
    check(vector == GP);
    vector = RUN(u_ss);
    printf("  attack: stack selector e028: %s\n", vector_name(vector));
    check(vector == GP);
    frame.rsp = USER_STACK_TOP - 64; /* zeros there: the null selector */
    attack("a far call to nowhere", RUN(u_call_gate), GP);
}

void guest_main(void)
{
    user_init();
    instructions();
    ports();
    hypercalls();
    page_tables();
    selectors();
}
