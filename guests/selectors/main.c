/* What the kernel sees of its own selectors, and native far transfers, which never change the mode by themselves. */
#include "guest.h"

const char guest_name[] = "selectors";

USER_ASM(u_see, "movl %cs, %eax; movl %ss, %ebx; pushq %rax; int3");
USER_ASM(u_iretq, "movq %rsp, %rax; pushq $0xe02b; pushq %rax; pushfq; pushq $0xe033; pushq $0x400040; iretq");

static void visible(void)
{
    u64 cs, ss, rights, limit;
    u8 ok;
    asm volatile("movl %%cs, %k0; movl %%ss, %k1" : "=r"(cs), "=r"(ss));
    printf("cs=%lx ss=%lx\n", cs, ss);
    static const u16 list[] = {0xe033, 0xe023, 0xe02b, 0xe030, 0xe008, 0xe010, 0xe038, 0xe040, 0, 3};
    for (u64 i = 0; i < ARRAY_SIZE(list); i++) {
        rights = limit = 0;
        asm volatile("larl %k2, %k0; setz %1" : "=r"(rights), "=q"(ok) : "r"((u64)list[i]) : "cc");
        printf("%x: lar %d %lx", list[i], ok, ok ? rights : 0);
        asm volatile("lsll %k2, %k0; setz %1" : "=r"(limit), "=q"(ok) : "r"((u64)list[i]) : "cc");
        printf(", lsl %d %lx", ok, ok ? limit : 0);
        asm volatile("verr %w1; setz %0" : "=q"(ok) : "r"((u64)list[i]) : "cc");
        printf(", verr %d", ok);
        asm volatile("verw %w1; setz %0" : "=q"(ok) : "r"((u64)list[i]) : "cc");
        printf(", verw %d\n", ok);
    }
}

static void far_transfers(void)
{
    u64 cs = 0;
    /* Returns that a CPU carries out by itself; we stay in kernel mode with the kernel's page tables. */
    TRY("movq %%rsp, %%rax; pushq $0xe02b; pushq %%rax; pushfq; pushq $0xe033; pushq $1f; iretq; 1: movl %%cs, %k0",
        : "=r"(cs)::"rax", "memory");
    show_fault("iretq to e033");
    printf("  cs=%lx, kernel data readable: %d\n", cs, start_info->magic[0] == 'x');
    TRY("pushq $0xe033; pushq $1f; lretq; 1: movl %%cs, %k0", : "=r"(cs)::"memory");
    show_fault("lretq to e033");
    printf("  cs=%lx\n", cs);
    TRY("movq %%rsp, %%rax; pushq $0xe02b; pushq %%rax; pushfq; pushq $0xe033; pushq $1f; iretq; 1: ud2", ::: "rax",
        "memory");
    show_fault("iretq to e033, then a fault");
    printf("  frame: cs=%lx ss=%lx\n", fault.cs, fault.ss);
    check(fault.cs == 0xe030);
    TRY_THEN("movq %%rsp, %%rbx; pushq $0xe02b; pushq %%rbx; pushfq; pushq $0xe030; pushq $1f; iretq; 1: nop",
             "movq %%rbx, %%rsp", ::: "rbx", "memory");
    printf("iretq to e030: %s(%lx)\n", vector_name(fault.vector), fault.error);
    TRY_THEN("movq %%rsp, %%rbx; pushq $0xe008; pushq $1f; lretq; 1: nop", "movq %%rbx, %%rsp", ::: "rbx", "memory");
    printf("lretq to e008: %s(%lx)\n", vector_name(fault.vector), fault.error);
    TRY_THEN("movq %%rsp, %%rbx; pushq $0x1233; pushq $1f; lretq; 1: nop", "movq %%rbx, %%rsp", ::: "rbx", "memory");
    printf("lretq to 1233: %s(%lx)\n", vector_name(fault.vector), fault.error);
    TRY_THEN("movq %%rsp, %%rbx; pushq $0x1233; pushq %%rbx; pushfq; pushq $0xe033; pushq $1f; iretq; 1: nop",
             "movq %%rbx, %%rsp", ::: "rbx", "memory");
    printf("iretq with ss 1233: %s(%lx)\n", vector_name(fault.vector), fault.error);
    struct {
        u32 offset;
        u16 selector;
    } __attribute__((packed)) to = {0x12345678, 0xe033};
    TRY("ljmpl *%0", ::"m"(to));
    printf("ljmp to e033:12345678: %s(%lx), rip is it: %d\n", vector_name(fault.vector), fault.error,
           fault.rip == 0x12345678);
    to.selector = 0x1233;
    TRY("ljmpl *%0", ::"m"(to));
    printf("ljmp to 1233: %s(%lx)\n", vector_name(fault.vector), fault.error);
}

static void events_bit(void)
{
    /* A native iretq with IF clear does not touch the event mask, and IF stays set for the processor. */
    u64 flags;
    vcpu0->evtchn_upcall_mask = 0;
    TRY("movq %%rsp, %%rax; pushq $0xe02b; pushq %%rax; pushq $2; pushq $0xe033; pushq $1f; iretq; 1: pushfq; popq %0",
        : "=r"(flags)::"rax", "memory");
    printf("iretq without IF: IF=%lu mask=%d\n", flags >> 9 & 1, vcpu0->evtchn_upcall_mask);
    events_mask();
}

static u64 context[8];
static struct regs landed;

static void land(struct regs *r)
{
    landed = *r;
    load_context(context);
}

static void compatibility(void)
{
    /* 32-bit code of the kernel, in a page below 4 GiB that also holds its stack. */
    static const u8 code[] = {0x8c, 0xc8, 0x0f, 0x0b}; /* mov %cs, %eax; ud2 */
    static struct {
        u32 offset;
        u16 selector;
    } __attribute__((packed)) to = {0x10000000, 0xe023};
    char *page = page_alloc();
    memcpy(page, code, sizeof(code));
    map_in(kernel_l4, 0x10000000, mfn_of(page) << 12 | PTE_P | PTE_RW);
    handlers[6] = land;
    if (!save_context(context))
        asm volatile("movq %0, %%rsp; ljmpl *%1" ::"r"(0x10001000UL), "m"(to));
    handlers[6] = 0;
    printf("in a 32-bit segment: %s at +%ld, cs read %lx, frame cs=%lx, rsp %lx\n", vector_name((int)landed.vector),
           landed.rip - 0x10000000, landed.rax & 0xffffffff, landed.cs & 0xffff, landed.rsp);
    check(landed.vector == 6);
}

static void user(void)
{
    struct regs r;
    user_init();
    user_frame(&r);
    run_user(u_see, (u64)(u_see_end - u_see), &r);
    printf("user: cs=%lx ss=%lx\n", user_exit.rax, user_exit.rbx);
    user_frame(&r);
    run_user(u_iretq, (u64)(u_iretq_end - u_iretq), &r);
    printf("user iretq: %s at +%lx cs=%lx\n", vector_name((int)user_exit.vector), user_exit.rip - USER_CODE,
           user_exit.cs & 0xffff);
    check(user_exit.vector == 6 && user_exit.rip == USER_CODE + 0x40);
}

void guest_main(void)
{
    visible();
    far_transfers();
    events_bit();
    compatibility();
    user();
}
