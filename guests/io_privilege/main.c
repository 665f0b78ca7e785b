/* I/O privilege: the level and the bitmap, at their bounds, of each vcpu, in kernel and in user mode. */
#include "attack.h"

const char guest_name[] = "io_privilege";

#define GP 13

USER_ASM(u_in8, "inb %dx, %al; int3");
USER_ASM(u_in16, "inw %dx, %ax; int3");
USER_ASM(u_in32, "inl %dx, %eax; int3");
USER_ASM(u_flags, "pushfq; popq %rax; int3");
USER_ASM(u_cli, "cli; int3");
USER_ASM(u_popf, "pushq $0x3002; popfq; pushfq; popq %rax; int3");

static u8 *bitmap; /* two pages and one that can be taken away */
static struct regs frame;

static s64 set_iopl(u32 level)
{
    return xen_physdev_op(PHYSDEVOP_set_iopl, &level);
}

static s64 set_bitmap(void *at, u32 ports)
{
    struct physdev_set_iobitmap request = {at, ports};
    return xen_physdev_op(PHYSDEVOP_set_iobitmap, &request);
}

static int user_in(u32 size, u16 port)
{
    struct regs r = frame;
    r.rdx = port;
    if (size == 1)
        return run_user(u_in8, (u64)(u_in8_end - u_in8), &r);
    if (size == 2)
        return run_user(u_in16, (u64)(u_in16_end - u_in16), &r);
    return run_user(u_in32, (u64)(u_in32_end - u_in32), &r);
}

static int kernel_in(u32 size, u16 port)
{
    if (size == 1)
        return TRY("inb %%dx, %%al", ::"d"(port) : "rax");
    if (size == 2)
        return TRY("inw %%dx, %%ax", ::"d"(port) : "rax");
    return TRY("inl %%dx, %%eax", ::"d"(port) : "rax");
}

/* Both modes must answer alike. */
static void port(const char *what, u32 size, u16 number, int allowed)
{
    int user = user_in(size, number), kernel = kernel_in(size, number);
    printf("  %s: %s: user %s, kernel %s\n", allowed ? "twin" : "attack", what,
           user == 3 ? "may" : vector_name(user), vector_name(kernel));
    check(user == (allowed ? 3 : GP));
    check(kernel == (allowed ? -1 : GP));
}

static void levels(void)
{
    static const u32 bad[] = {4, 0x103, 0x80000003, 0xffffffff};
    u64 flags;
    rule("a level above 3 is none: -EINVAL, and the level stays");
    for (u64 i = 0; i < ARRAY_SIZE(bad); i++) {
        char label[32];
        snprintf(label, sizeof(label), "level %x", bad[i]);
        attack(label, set_iopl(bad[i]), -EINVAL);
    }
    attack("an argument that is not mapped", xen_physdev_op(PHYSDEVOP_set_iopl, (void *)0x12345000), -EFAULT);
    port("port 0x80", 1, 0x80, 0);
    for (u32 level = 0; level <= 3; level++) {
        struct regs r = frame;
        twin("a level that there is", set_iopl(level));
        asm volatile("pushfq; popq %0" : "=r"(flags));
        run_user(u_flags, (u64)(u_flags_end - u_flags), &r);
        printf("    level %u: kernel's flags show %lu, user mode's %lu, its frame's %lu;", level, flags >> 12 & 3,
               user_exit.rax >> 12 & 3, user_exit.rflags >> 12 & 3);
        printf(" kernel's in: %s,", vector_name(kernel_in(1, 0x80)));
        printf(" user's in: %s,", vector_name(user_in(1, 0x80)));
        r = frame;
        printf(" user's cli: %s,", vector_name(run_user(u_cli, (u64)(u_cli_end - u_cli), &r)));
        r = frame;
        run_user(u_popf, (u64)(u_popf_end - u_popf), &r);
        printf(" after its popf %lu, IF %d\n", user_exit.rax >> 12 & 3, !!(user_exit.rax & X86_EFLAGS_IF));
    }
    twin("none", set_iopl(0));
}

static void by_iret(void)
{
    rule("the level that a return frame names is the guest kernel's to give, and user mode's popf changes nothing");
    frame.rflags = X86_EFLAGS_IF | X86_EFLAGS_IOPL;
    struct regs r = frame;
    printf("  with a frame of level 3: user's in: %s,", vector_name(user_in(1, 0x80)));
    run_user(u_flags, (u64)(u_flags_end - u_flags), &r);
    printf(" flags show %lu\n", user_exit.rax >> 12 & 3);
    frame.rflags = X86_EFLAGS_IF;
    printf("  with a frame of level 0: user's in: %s\n", vector_name(user_in(1, 0x80)));
    printf("  kernel's in: %s\n", vector_name(kernel_in(1, 0x80)));
    set_iopl(0);
}

static void bounds(void)
{
    char *gone = (char *)bitmap + 2 * PAGE_SIZE;
    u64 entry = mfn_of(gone) << 12 | PTE_P | PTE_RW | PTE_US;
    rule("a bitmap counts for as many ports as it has: a port beyond, or half beyond, is refused");
    memset(bitmap, 0, 2 * PAGE_SIZE);
    twin("for 0x81 ports", set_bitmap(bitmap, 0x81));
    port("the last port, a byte", 1, 0x80, 1);
    port("a word that ends beyond", 2, 0x80, 0);
    port("four bytes that end beyond", 4, 0x7e, 0);
    port("four bytes that end there", 4, 0x7d, 1);
    port("the next port", 1, 0x81, 0);
    twin("for none", set_bitmap(bitmap, 0));
    port("the first port", 1, 0, 0);
    attack("for 65537 ports", set_bitmap(bitmap, 65537), -EINVAL);
    attack("for 2^32 - 1", set_bitmap(bitmap, 0xffffffff), -EINVAL);
    port("after these", 1, 0, 0);
    twin("for 65536", set_bitmap(bitmap, 65536));
    port("the last port", 1, 0xffff, 1);
    port("a word across the end of ports", 2, 0xffff, 0);
    rule("every bit of the width counts, also in the next byte");
    for (u32 width = 1; width <= 4; width *= 2)
        for (u16 at = 0x3f5; at < 0x3f9; at++) {
            char label[48];
            for (u32 i = 0; i <= width; i++) {
                u16 bit = (u16)(at + i);
                bitmap[bit / 8] = (u8)(1 << bit % 8);
                int user = user_in(width, at), kernel = kernel_in(width, at);
                snprintf(label, sizeof(label), "width %u at %x, port %x closed", width, at, bit);
                check(user == (i < width ? GP : 3));
                check(kernel == (i < width ? GP : -1));
                bitmap[bit / 8] = 0;
            }
        }
    printf("  tried\n");
    rule("what of the bitmap cannot be read is closed, and a new look is taken each time");
    twin("a bitmap whose second half is on another page", set_bitmap(gone - 16, 65536));
    port("the last port on the first page", 1, 127, 1);
    port("a word across the pages", 2, 127, 1);
    check(map_page((u64)gone, 0) == 0);
    /* Two bytes of the bitmap are read, always. */
    port("the second page gone: a port of the first page's last byte", 1, 127, 0);
    port("of the byte before", 1, 119, 1);
    port("on the second", 1, 128, 0);
    port("across", 2, 127, 0);
    check(map_page((u64)gone, entry) == 0);
    port("there again", 2, 127, 1);
    twin("a bitmap where nothing is mapped", set_bitmap((void *)0x12345000, 65536));
    port("port 0x80", 1, 0x80, 0);
    printf("  in the hypervisor's range: %s\n", error_name(set_bitmap((void *)0xffff830000000000, 65536)));
    printf("  in the hole: %s\n", error_name(set_bitmap((void *)(1UL << 62), 65536)));
    printf("  at the end of everything: %s\n", error_name(set_bitmap((void *)-1UL, 65536)));
    port("port 0x80", 1, 0x80, 0);
    port("port 0", 1, 0, 0);
    twin("none", set_bitmap(0, 0));
}

/* Elements of four bytes at `at`; a page fault's address is told by its distance from `page`. */
static void element(const char *what, void *at, const char *page)
{
    void *to = at, *from = at;
    TRY("insl", : "+D"(to) : "d"(0x80) : "memory");
    printf("  %s: ins %s", what, vector_name(fault.vector));
    if (fault.vector == 14)
        printf(" %lx at %ld", fault.error, (s64)(fault.cr2 - (u64)page));
    TRY("outsl", : "+S"(from) : "d"(0x80) : "memory");
    printf(", outs %s", vector_name(fault.vector));
    if (fault.vector == 14)
        printf(" %lx at %ld", fault.error, (s64)(fault.cr2 - (u64)page));
    printf("; they moved by %ld and %ld\n", (s64)((u64)to - (u64)at), (s64)((u64)from - (u64)at));
}

static void set_fs_base(u64 base)
{
    asm volatile("wrmsr" ::"c"(0xc0000100), "a"((u32)base), "d"((u32)(base >> 32)));
}

static void strings(void)
{
    char *gone = (char *)bitmap + 2 * PAGE_SIZE, *from = 0;
    u64 entry = mfn_of(gone) << 12 | PTE_P | PTE_RW | PTE_US;
    rule("a string's element that is out of reach is a page fault at its first byte that is; in no memory, #GP");
    twin("level 1", set_iopl(1));
    element("on a page", gone - 4, gone);
    element("across two pages", gone - 2, gone);
    check(map_page((u64)gone, entry & ~PTE_RW) == 0);
    element("on a read-only page", gone + 8, gone);
    check(map_page((u64)gone, 0) == 0);
    element("up to a page that is gone", gone - 4, gone);
    element("across to it", gone - 2, gone);
    element("on it", gone + 8, gone);
    element("in the hypervisor's range", (void *)0xffff830000000000, 0);
    element("in the hole", (void *)(1UL << 62), 0);
    set_fs_base((u64)gone);
    TRY("outsl %%fs:(%%rsi), %%dx", : "+S"(from) : "d"(0x80) : "memory");
    printf("  outs from another segment: %s at %ld\n", vector_name(fault.vector), (s64)(fault.cr2 - (u64)gone));
    set_fs_base(0);
    check(map_page((u64)gone, entry) == 0);
    twin("level 0", set_iopl(0));
}

static char stack[4096] __attribute__((aligned(16)));
static struct vcpu_guest_context context;
static volatile int said;

static void second(void)
{
    check(kernel_in(1, 0x80) == GP);
    check(set_iopl(1) == 0);
    said = 1 + (kernel_in(1, 0x80) == -1);
    for (;;)
        xen_vcpu_op(VCPUOP_down, 1, 0);
}

static void each_vcpu(void)
{
    u64 end = system_time() + PATIENCE;
    rule("level and bitmap are of one vcpu");
    check(set_bitmap(bitmap, 65536) == 0);
    vcpu_context(&context, second, stack, sizeof(stack));
    vcpu_takes_traps(&context, GP, GP, 4);
    check(xen_vcpu_op(VCPUOP_initialise, 1, &context) == 0);
    check(xen_vcpu_op(VCPUOP_up, 1, 0) == 0);
    while (!said && system_time() < end)
        xen_sched_op(SCHEDOP_yield, 0);
    stays("the other vcpu has neither, then its own level", said == 2);
    check(set_bitmap(0, 0) == 0);
    stays("which is not ours", kernel_in(1, 0x80) == GP);
}

void guest_main(void)
{
    bitmap = page_alloc();
    page_alloc(), page_alloc(), page_alloc();
    user_init();
    user_frame(&frame);
    levels();
    by_iret();
    bounds();
    strings();
    each_vcpu();
}
