/* Ways back to the guest that tempt a processor: odd targets of SYSRET and IRET, traps in between, IRET in a batch. */
#include "attack.h"

const char guest_name[] = "return_targets";

#define TOP_PAGE 0x7ffffffff000UL

USER_ASM(u_syscall, "syscall; int3");
USER_ASM(u_int3, "int3");
USER_ASM(u_step, "nop; syscall; int3");

static u8 *top;

static void map_top(void)
{
    /* Slot 255 of both L4 tables ends with a page that the guest's user mode may execute. */
    top = page_alloc();
    map_in(kernel_l4, TOP_PAGE, mfn_of(top) << 12 | PTE_P | PTE_RW | PTE_US);
    check(set_entry((u64 *)user_l4 + 255, ((u64 *)kernel_l4)[255]) == 0);
}

static int from(u64 rip, u64 flags)
{
    struct regs r;
    user_frame(&r);
    r.rip = rip;
    r.rflags |= flags;
    return run_user(u_int3, 1, &r);
}

static int back_to(u64 rip, int by_sysret)
{
    struct regs r;
    user_frame(&r);
    r.rip = r.rcx = rip;
    r.error = by_sysret ? VGCF_in_syscall : 0;
    return run_user(u_int3, 1, &r);
}

static void end_of_the_lower_half(void)
{
    rule("a system call at the very end of the lower half returns to a non-canonical address: #GP in the guest");
    memset(top, 0x90, PAGE_SIZE);
    top[4094] = 0x0f, top[4095] = 0x05;
    twin_is("the system call is taken", from(TOP_PAGE + 4090, 0), VEC_SYSCALL);
    stays("its return address is 2^47", user_exit.rip == 1UL << 47 && user_exit.rcx == 1UL << 47);
    static const struct {
        const char *name;
        u64 rip;
    } targets[] = {
        {"2^47", 1UL << 47}, {"2^47 + 16", (1UL << 47) + 16}, {"2^63", 1UL << 63}, {"2^62", 1UL << 62},
        {"the hypervisor's range", 0xffff830000000000}, {"below the upper half", 0xffff7fffffffffff},
    };
    for (u64 i = 0; i < ARRAY_SIZE(targets); i++)
        for (int by_sysret = 0; by_sysret < 2; by_sysret++) {
            int vector = back_to(targets[i].rip, by_sysret);
            /* Whether the hypervisor maps something there, bit 0 of a page fault's error code, is its own matter. */
            printf("  attack: %s to %s: %s(%lx), rip kept %d\n", by_sysret ? "sysret" : "iret", targets[i].name,
                   vector_name(vector), user_exit.error & ~(vector == 14 ? 1UL : 0UL), user_exit.rip == targets[i].rip);
            check(vector == 13 || vector == 14);
        }
    memset(top, 0xcc, PAGE_SIZE);
    twin_is("sysret to the last byte of the lower half", back_to(TOP_PAGE + 4095, 1), 3);
    twin_is("iret to it", back_to(TOP_PAGE + 4095, 0), 3);
    memset(top, 0x90, PAGE_SIZE);
    int vector = back_to(TOP_PAGE + 4000, 1);
    printf("  attack: running off the end: %s(%lx), rip is 2^47: %d\n", vector_name(vector), user_exit.error,
           user_exit.rip == 1UL << 47);
    check(vector == 13);
}

static void flags_at_a_system_call(void)
{
    static const struct {
        const char *name;
        u64 flags;
    } sets[] = {{"NT", X86_EFLAGS_NT}, {"DF", X86_EFLAGS_DF}, {"AC", X86_EFLAGS_AC}, {"ID", X86_EFLAGS_ID}};
    rule("flags of user mode do not follow a system call into the hypervisor");
    for (u64 i = 0; i < ARRAY_SIZE(sets); i++) {
        struct regs r;
        char label[32];
        user_frame(&r);
        r.rflags |= sets[i].flags;
        snprintf(label, sizeof(label), "a system call with %s", sets[i].name);
        twin_is(label, run_user(u_syscall, (u64)(u_syscall_end - u_syscall), &r), VEC_SYSCALL);
        stays("the flag is shown", (user_exit.rflags & sets[i].flags) == sets[i].flags);
    }
    struct regs r;
    user_frame(&r);
    r.rflags |= X86_EFLAGS_IOPL;
    twin_is("a system call with IOPL 3 asked for", run_user(u_syscall, (u64)(u_syscall_end - u_syscall), &r), VEC_SYSCALL);
    stays("which is not given", !(user_exit.rflags & X86_EFLAGS_IOPL));
}

static void single_step(void)
{
    struct regs r;
    rule("a single step ends after its instruction, and none is taken in the hypervisor");
    user_frame(&r);
    r.rflags |= X86_EFLAGS_TF;
    attack("step from a nop", run_user(u_step, (u64)(u_step_end - u_step), &r), 1);
    stays("one instruction was done", user_exit.rip == USER_CODE + 1);
    user_frame(&r);
    r.rip = USER_CODE + 1;
    r.rflags |= X86_EFLAGS_TF;
    int vector = run_user(u_step, (u64)(u_step_end - u_step), &r);
    printf("  attack: step from a system call: %s at +%ld, TF shown %d\n", vector_name(vector),
           user_exit.rip - USER_CODE, !!(user_exit.rflags & X86_EFLAGS_TF));
    user_frame(&r);
    r.rflags |= X86_EFLAGS_TF;
    r.error = VGCF_in_syscall;
    attack("sysret to a nop", run_user(u_step, (u64)(u_step_end - u_step), &r), 1);
    printf("    at +%ld\n", user_exit.rip - USER_CODE);
    user_frame(&r);
    r.rip = USER_CODE + 1;
    twin_is("a system call without the flag", run_user(u_step, (u64)(u_step_end - u_step), &r), VEC_SYSCALL);
}

/* A multicall whose stack pointer is at an iret frame, as a guest kernel's would be. */
static u64 kernel_context[8];
static struct regs landed;
static char side_stack[4096] __attribute__((aligned(16)));

extern char landing[];
asm(".pushsection .text\nlanding: int3\n.popsection");

static void land(struct regs *r)
{
    landed = *r;
    load_context(kernel_context);
}

static void batch(struct multicall_entry *calls, u64 count, struct regs *r)
{
    trap_handler *kept = handlers[3];
    handlers[3] = land;
    u64 frame[9] = {r->rax, r->r11, r->rcx, 0, r->rip, r->cs, r->rflags, r->rsp, r->ss};
    u64 *at = frame;
    landed.vector = (u64)-1;
    if (!save_context(kernel_context))
        asm volatile("movq %0, %%rsp; syscall; ud2"
                     :
                     : "r"(at), "a"((u64)__HYPERVISOR_multicall), "D"(calls), "S"(count), "d"(0)
                     : "memory", "rcx", "r11");
    handlers[3] = kept;
    events_mask();
}

static void iret_in_a_batch(void)
{
    u64 *table = table_alloc(), *page = page_alloc();
    struct regs user, kernel;
    struct mmu_update update = {machine_of(table), mfn_of(page) << 12 | PTE_P};
    static struct multicall_entry calls[2];
    const struct multicall_entry iret = {.op = __HYPERVISOR_iret, .result = 88};
    const struct multicall_entry write = {
        __HYPERVISOR_mmu_update, 77, {(u64)&update, 1, 0, DOMID_SELF, 0, 0}};
    check(pin(1, table) == 0);
    user_frame(&user);
    run_user(u_int3, 1, &user); /* leaves int3 in the page */
    kernel = user;
    kernel.rip = (u64)landing, kernel.cs = FLAT_KERNEL_CS & ~3, kernel.rsp = (u64)side_stack + sizeof(side_stack);
    user.rax = kernel.rax = 0x55;

    rule("an iret in a batch ends it: what follows is not done under user mode's tables, nor under the kernel's");
    calls[0] = iret, calls[1] = write;
    batch(calls, 2, &user);
    attack("iret, then an update", (s64)landed.vector, 3);
    stays("it came from user mode", landed.rip == USER_CODE + 1 && (landed.cs & 3) == 3);
    printf("    rax %lx, results %s", landed.rax, error_name((s64)calls[0].result));
    printf(" %s\n", error_name((s64)calls[1].result));
    stays("the update is not done", table[0] == 0);
    calls[0] = write, calls[1] = iret;
    batch(calls, 2, &user);
    twin_is("the update, then iret", (s64)landed.vector, 3);
    stays("the update is done", table[0] != 0 && calls[0].result == 0);
    check(set_entry(table, 0) == 0);
    calls[0] = iret, calls[1] = write;
    batch(calls, 2, &kernel);
    attack("iret to the kernel, then the update", (s64)landed.vector, 3);
    stays("it came from the kernel", landed.rip == (u64)landing + 1);
    printf("    rax %lx, results %s", landed.rax, error_name((s64)calls[0].result));
    printf(" %s\n", error_name((s64)calls[1].result));
    stays("the update is not done", table[0] == 0);
}

void guest_main(void)
{
    user_init();
    map_top();
    end_of_the_lower_half();
    flags_at_a_system_call();
    single_step();
    iret_in_a_batch();
}
