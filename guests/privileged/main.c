/* Privileged instructions in the guest kernel: which Xen emulates, and what they then do. */
#include "guest.h"

const char guest_name[] = "privileged";

#define SHOW(label, text, ...)   \
    do {                         \
        TRY(text, __VA_ARGS__);  \
        show_fault(label);       \
    } while (0)

static void flags(void)
{
    u64 rflags;
    vcpu0->evtchn_upcall_mask = 0;
    SHOW("cli", "cli", :);
    printf("  mask=%d\n", vcpu0->evtchn_upcall_mask);
    vcpu0->evtchn_upcall_mask = 1;
    SHOW("sti", "sti", :);
    printf("  mask=%d\n", vcpu0->evtchn_upcall_mask);
    events_mask();
    SHOW("pushf", "pushfq; popq %0", : "=r"(rflags));
    printf("  IF=%d IOPL=%lu\n", !!(rflags & X86_EFLAGS_IF), rflags >> 12 & 3);
    SHOW("popf with IOPL 3 and no IF", "pushq %1; popfq; pushfq; popq %0", : "=r"(rflags) : "r"(0x3002UL) : "cc");
    printf("  IF=%d IOPL=%lu\n", !!(rflags & X86_EFLAGS_IF), rflags >> 12 & 3);
    struct {
        u32 iopl;
    } iopl = {3};
    expect_result("set_iopl 3", xen_physdev_op(PHYSDEVOP_set_iopl, &iopl), 0);
    SHOW("pushf", "pushfq; popq %0", : "=r"(rflags));
    printf("  IF=%d IOPL=%lu\n", !!(rflags & X86_EFLAGS_IF), rflags >> 12 & 3);
    vcpu0->evtchn_upcall_mask = 0;
    SHOW("cli with IOPL 3", "cli", :);
    printf("  mask=%d\n", vcpu0->evtchn_upcall_mask);
    events_mask();
    SHOW("sti with IOPL 3", "sti", :);
    printf("  mask=%d\n", vcpu0->evtchn_upcall_mask);
    events_mask();
    iopl.iopl = 4;
    expect_result("set_iopl 4", xen_physdev_op(PHYSDEVOP_set_iopl, &iopl), -EINVAL);
    iopl.iopl = 0;
    expect_result("set_iopl 0", xen_physdev_op(PHYSDEVOP_set_iopl, &iopl), 0);
}

static void ports(void)
{
    u32 value = 0x1234;
    struct {
        u32 iopl;
    } iopl;
    for (iopl.iopl = 0; iopl.iopl < 2; iopl.iopl++) {
        expect_result("set_iopl", xen_physdev_op(PHYSDEVOP_set_iopl, &iopl), 0);
        value = 0x12345678;
        SHOW("inb", "inb $0x80, %%al", : "+a"(value));
        printf("  eax=%x\n", value);
        value = 0x12345678;
        SHOW("inw", "inw %%dx, %%ax", : "+a"(value) : "d"(0x1f0));
        printf("  eax=%x\n", value);
        SHOW("inl", "inl %%dx, %%eax", : "+a"(value) : "d"(0x1f0));
        printf("  eax=%x\n", value);
        SHOW("outb", "outb %%al, %%dx", ::"a"(0), "d"(0x80));
        SHOW("outw", "outw %%ax, %%dx", ::"a"(0), "d"(0x1f0));
        SHOW("outl", "outl %%eax, %%dx", ::"a"(0), "d"(0x1f0));
        char buffer[16] = "abcdefgh";
        char *at = buffer;
        SHOW("insb", "insb", : "+D"(at) : "d"(0x80) : "memory");
        printf("  moved %ld, byte %x\n", at - buffer, (u8)buffer[0]);
        u64 count = 3;
        at = buffer;
        SHOW("rep insw", "rep insw", : "+D"(at), "+c"(count) : "d"(0x80) : "memory");
        printf("  moved %ld, left %lu\n", at - buffer, count);
        count = 3;
        at = buffer;
        SHOW("rep outsb", "rep outsb", : "+S"(at), "+c"(count) : "d"(0x80) : "memory");
        printf("  moved %ld, left %lu\n", at - buffer, count);
    }
    iopl.iopl = 0;
    xen_physdev_op(PHYSDEVOP_set_iopl, &iopl);
    static u8 bitmap[8192];
    memset(bitmap, 0xff, sizeof(bitmap));
    bitmap[0x80 / 8] = 0xfe;
    struct physdev_set_iobitmap b = {bitmap, 65536};
    expect_result("set_iobitmap with port 0x80 clear", xen_physdev_op(PHYSDEVOP_set_iobitmap, &b), 0);
    value = 0;
    SHOW("inb 0x80", "inb $0x80, %%al", : "+a"(value));
    printf("  eax=%x\n", value);
    SHOW("inw 0x80", "inw $0x80, %%ax", : "+a"(value));
    SHOW("inb 0x81", "inb $0x81, %%al", : "+a"(value));
    b.nr_ports = 65537;
    expect_result("set_iobitmap with too many ports", xen_physdev_op(PHYSDEVOP_set_iobitmap, &b), -EINVAL);
    b = (struct physdev_set_iobitmap){0, 0};
    expect_result("set_iobitmap none", xen_physdev_op(PHYSDEVOP_set_iobitmap, &b), 0);
}

static void control_registers(void)
{
    u64 value, cr0, cr4;
    SHOW("read cr0", "movq %%cr0, %0", : "=r"(cr0));
    printf("  cr0=%lx\n", cr0);
    SHOW("write cr0 as it is", "movq %0, %%cr0", ::"r"(cr0));
    SHOW("write cr0 with TS", "movq %0, %%cr0", ::"r"(cr0 | 8));
    SHOW("read cr0", "movq %%cr0, %0", : "=r"(value));
    printf("  TS=%d\n", !!(value & 8));
    SHOW("clts", "clts", :);
    SHOW("read cr0", "movq %%cr0, %0", : "=r"(value));
    printf("  TS=%d\n", !!(value & 8));
    SHOW("write cr0 without WP", "movq %0, %%cr0", ::"r"(cr0 & ~0x10000UL));
    SHOW("write cr0 without PG", "movq %0, %%cr0", ::"r"(cr0 & ~0x80000000UL));
    SHOW("smsw", "smsw %0", : "=r"(value));
    SHOW("lmsw", "lmsw %0", ::"r"((u16)0x3b));
    SHOW("write cr2", "movq %0, %%cr2", ::"r"(0x1234UL));
    SHOW("read cr2", "movq %%cr2, %0", : "=r"(value));
    printf("  cr2=%lx vcpu_info=%lx\n", value, vcpu0->cr2);
    SHOW("read cr3", "movq %%cr3, %0", : "=r"(value));
    printf("  cr3 is our table: %d\n", value == mfn_of((void *)kernel_l4) << 12);
    SHOW("write cr3", "movq %0, %%cr3", ::"r"(value));
    SHOW("write cr3, no table", "movq %0, %%cr3", ::"r"(mfn_of(page_alloc()) << 12));
    SHOW("write cr3, no frame", "movq %0, %%cr3", ::"r"(0xfffffff000UL));
    SHOW("read cr4", "movq %%cr4, %0", : "=r"(cr4));
    printf("  PAE=%d PGE=%d PSE=%d OSFXSR=%d OSXMMEXCPT=%d VMXE=%d TSD=%d DE=%d\n", !!(cr4 & 0x20), !!(cr4 & 0x80),
           !!(cr4 & 0x10), !!(cr4 & 0x200), !!(cr4 & 0x400), !!(cr4 & 0x2000), !!(cr4 & 4), !!(cr4 & 8));
    SHOW("write cr4 as it is", "movq %0, %%cr4", ::"r"(cr4));
    SHOW("write cr4 without PAE", "movq %0, %%cr4", ::"r"(cr4 & ~0x20UL));
    SHOW("write cr4 with TSD", "movq %0, %%cr4", ::"r"(cr4 | 4));
    SHOW("read cr4", "movq %%cr4, %0", : "=r"(value));
    printf("  TSD=%d\n", !!(value & 4));
    SHOW("rdtsc with TSD", "rdtsc", : "=a"(value)::"rdx");
    SHOW("write cr4 as it was", "movq %0, %%cr4", ::"r"(cr4));
    SHOW("read cr8", "movq %%cr8, %0", : "=r"(value));
    SHOW("read cr1", ".byte 0x0f, 0x20, 0xc8", ::: "rax");
}

static void tables(void)
{
    struct {
        u16 limit;
        u64 base;
    } __attribute__((packed)) table = {0, 0};
    u64 value;
    SHOW("lgdt", "lgdt %0", ::"m"(table));
    SHOW("lidt", "lidt %0", ::"m"(table));
    SHOW("lldt", "lldt %0", ::"r"((u16)0));
    SHOW("ltr", "ltr %0", ::"r"((u16)0));
    SHOW("invlpg", "invlpg (%0)", ::"r"(kernel_l4));
    SHOW("wbinvd", "wbinvd", :);
    SHOW("swapgs", "swapgs", :);
    SHOW("lar of the kernel's code", "lar %1, %0", : "=r"(value) : "r"((u64)FLAT_KERNEL_CS));
    u8 valid;
    SHOW("verr 0x1234", "verr %1; setz %0", : "=q"(valid) : "r"((u16)0x1234) : "cc");
    printf("  valid=%d\n", valid);
    SHOW("verw flat data", "verw %1; setz %0", : "=q"(valid) : "r"((u16)FLAT_KERNEL_SS) : "cc");
    printf("  valid=%d\n", valid);
    SHOW("monitor", "monitor", ::"a"(kernel_l4), "c"(0), "d"(0));
    SHOW("mwait", "mwait", ::"a"(0), "c"(0));
    SHOW("vmcall", "vmcall", :);
    SHOW("xsetbv", "xsetbv", ::"a"(1), "c"(0), "d"(0));
}

static int upcalls;

static void on_event(struct regs *r)
{
    (void)r;
    upcalls++;
    vcpu0->evtchn_upcall_pending = 0;
    vcpu0->evtchn_pending_sel = 0;
    memset(shared_info->evtchn_pending, 0, sizeof(shared_info->evtchn_pending));
}

static void halting(void)
{
    struct evtchn_bind_virq b = {VIRQ_TIMER, 0, 0};
    handlers[VEC_EVENT] = on_event;
    xen_vcpu_op(VCPUOP_stop_periodic_timer, 0, 0);
    check(xen_event_channel_op(EVTCHNOP_bind_virq, &b) == 0);
    clear_bit(shared_info->evtchn_mask, b.port);
    vcpu0->evtchn_upcall_mask = 1;
    u64 at = system_time() + PATIENCE; /* not before the next lines, however long they take */
    xen_set_timer_op(at);
    SHOW("hlt with events masked", "hlt", :);
    printf("  mask=%d upcalls=%d, slept: %d\n", vcpu0->evtchn_upcall_mask, upcalls, system_time() + 100000 >= at);
    events_mask();
}

void guest_main(void)
{
    flags();
    ports();
    control_registers();
    tables();
    halting();
}
