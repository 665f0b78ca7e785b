/* The iret hypercall: to the kernel, to user mode, what of rflags survives, VGCF_in_syscall, event mask. */
#include "guest.h"

const char guest_name[] = "iret";

USER_ASM(u_int3, "int3");

static u64 kernel_context[8];
static struct regs landed;
static u8 landed_mask;
static char side_stack[4096] __attribute__((aligned(16)));

static void land(struct regs *r)
{
    landed = *r;
    landed_mask = vcpu0->evtchn_upcall_mask;
    load_context(kernel_context);
}

extern char landing[];
asm(".pushsection .text\nlanding: int3\n.popsection");

static void kernel_frame(struct regs *r)
{
    memset(r, 0, sizeof(*r));
    r->rip = (u64)landing;
    r->cs = FLAT_KERNEL_CS & ~3;
    r->rsp = (u64)side_stack + sizeof(side_stack);
    r->ss = FLAT_KERNEL_SS;
}

/* Go there; whatever trap comes first brings us back. */
static void go(const char *label, struct regs *r)
{
    trap_handler *kept = handlers[3];
    for (int i = 0; i < VEC_FAILSAFE + 1; i++)
        handlers[i] = land;
    if (!save_context(kernel_context))
        resume(r);
    memset(handlers, 0, sizeof(handlers));
    handlers[3] = kept;
    events_mask();
    printf("%s: %s cs=%lx ss=%lx", label, vector_name((int)landed.vector), landed.cs & 0xffff,
           landed.ss & 0xffff);
    if (landed.vector == VEC_FAILSAFE)
        printf(" selectors %lx %lx %lx %lx", failsafe_selectors[0], failsafe_selectors[1],
               failsafe_selectors[2], failsafe_selectors[3]);
    printf("\n");
}

static void registers(void)
{
    struct regs r;
    kernel_frame(&r);
    u64 *words = (u64 *)&r;
    for (int i = 0; i < 15; i++)
        words[i] = 0x1111111111111111UL * (u64)(i + 1);
    go("kernel to kernel", &r);
    check(landed.vector == 3 && landed.rip == (u64)landing + 1);
    check(landed.rsp == (u64)side_stack + sizeof(side_stack));
    int kept = 1;
    for (int i = 0; i < 15; i++)
        kept &= ((u64 *)&landed)[i] == 0x1111111111111111UL * (u64)(i + 1);
    printf("all general registers arrive: %d\n", kept);
    check(kept);
    kernel_frame(&r);
    r.error = VGCF_in_syscall;
    r.rcx = 0x1234, r.r11 = 0x5678;
    go("kernel to kernel, in_syscall", &r);
    printf("rcx is rip: %d, r11=%lx\n", landed.rcx == (u64)landing, landed.r11);
}

static void flags(void)
{
    static const struct {
        const char *name;
        u64 bits;
    } sets[] = {
        {"none", 0},           {"CF", 1},           {"DF", X86_EFLAGS_DF}, {"AC", X86_EFLAGS_AC},
        {"ID", X86_EFLAGS_ID}, {"NT", X86_EFLAGS_NT}, {"IOPL", X86_EFLAGS_IOPL}, {"VM", 0x20000},
        {"VIF VIP", 0x180000}, {"bit 1", 2},        {"reserved", 0xffffffff00000000UL},
    };
    struct regs r;
    for (u64 i = 0; i < ARRAY_SIZE(sets); i++) {
        for (int user = 0; user < 2; user++) {
            if (user)
                user_frame(&r);
            else
                kernel_frame(&r);
            r.rflags = sets[i].bits;
            if (user) {
                run_user(u_int3, 1, &r);
                landed = user_exit;
            } else {
                char label[32];
                snprintf(label, sizeof(label), "flags %s", sets[i].name);
                go(label, &r);
            }
            printf("flags %s, %s: rflags=%lx mask saved=%lu\n", sets[i].name, user ? "user" : "kernel",
                   landed.rflags, landed.cs >> 32 & 0xff);
        }
    }
}

static void masks(void)
{
    struct regs r;
    kernel_frame(&r);
    r.rflags = X86_EFLAGS_IF;
    go("kernel with IF", &r);
    printf("mask saved=%lu, IF shown=%d\n", landed.cs >> 32 & 0xff, !!(landed.rflags & X86_EFLAGS_IF));
    check(!(landed.cs >> 32 & 0xff));
    kernel_frame(&r);
    go("kernel without IF", &r);
    printf("mask saved=%lu, IF shown=%d\n", landed.cs >> 32 & 0xff, !!(landed.rflags & X86_EFLAGS_IF));
    check((landed.cs >> 32 & 0xff) == 1);
    kernel_frame(&r);
    r.cs |= 0xffUL << 32; /* the saved mask in the frame is only for reading: IF decides */
    r.rflags = X86_EFLAGS_IF;
    go("kernel with IF and a saved mask", &r);
    printf("mask saved=%lu\n", landed.cs >> 32 & 0xff);
    check(!(landed.cs >> 32 & 0xff));
}

static void user(void)
{
    struct regs r;
    user_init();
    user_frame(&r);
    run_user(u_int3, 1, &r); /* user mode's page holds int3 from here on */
    user_frame(&r);
    r.rcx = 0x1234, r.r11 = 0x5678, r.rax = 1, r.r15 = 15;
    go("kernel to user", &r);
    printf("cs=%lx, rcx restored: %d, r11 restored: %d, rax: %ld, r15: %ld\n", landed.cs, landed.rcx == 0x1234,
           landed.r11 == 0x5678, landed.rax, landed.r15);
    user_frame(&r);
    r.error = VGCF_in_syscall;
    r.rcx = 0x1234, r.r11 = 0x5678;
    go("kernel to user, in_syscall", &r);
    printf("rcx is rip: %d, r11=%lx\n", landed.rcx == USER_CODE, landed.r11);
}

static void selectors(void)
{
    static const struct {
        u64 cs, ss;
    } sets[] = {
        {0xe030, 0xe028}, {0xe031, 0xe029}, {0xe032, 0xe02b}, {0xe033, 0xe02b}, {0xe030, 0}, {0xe030, 3},
        {0xe033, 0}, {0x1230, 0xe02b}, {0x1233, 0xe02b}, {0xe030, 0x1233}, {0xe033, 0x1233}, {0xe02b, 0xe02b},
        {0, 0xe02b}, {3, 0xe02b},
    };
    struct regs r;
    for (u64 i = 0; i < ARRAY_SIZE(sets); i++) {
        char label[40];
        snprintf(label, sizeof(label), "cs=%lx ss=%lx", sets[i].cs, sets[i].ss);
        if ((sets[i].cs & 3) == 3)
            user_frame(&r);
        else
            kernel_frame(&r);
        r.cs = sets[i].cs, r.ss = sets[i].ss;
        go(label, &r);
        printf("  at the target: %d, rsp kept: %d, error %lx\n",
               landed.rip - (landed.vector == 3) == r.rip, landed.rsp == r.rsp, landed.error);
    }
}

static void bad_rip(void)
{
    struct regs r;
    kernel_frame(&r);
    r.rip = 1UL << 62;
    go("non-canonical rip", &r);
    user_frame(&r);
    r.rip = 1UL << 62;
    go("non-canonical rip, user", &r);
    kernel_frame(&r);
    r.rip = 0xffff830000000000;
    go("rip in Xen's range", &r);
    printf("  error %lx\n", landed.error & ~1UL);
}

void guest_main(void)
{
    registers();
    masks();
    user();
    flags();
    selectors();
    bad_rip();
}
