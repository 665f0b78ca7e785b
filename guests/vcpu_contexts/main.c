/* VCPUOP_initialise: a context's every field is the guest's word, and checked; a refused one leaves the vcpu free. */
#include "attack.h"

const char guest_name[] = "vcpu_contexts";

static struct vcpu_guest_context context;
static char stack[4096] __attribute__((aligned(16)));
static volatile int said;

static void second(void)
{
    said = 1;
    for (;;)
        xen_vcpu_op(VCPUOP_down, 1, 0);
}

static void fresh(void)
{
    vcpu_context(&context, second, stack, sizeof(stack));
    vcpu_takes_callbacks(&context);
}

static void try(const char *label, s64 expected)
{
    attack(label, xen_vcpu_op(VCPUOP_initialise, 1, &context), expected);
    fresh();
}

static void addresses(void)
{
    rule("addresses are canonical: -EINVAL");
    fresh();
    context.user_regs.rip = 1UL << 47;
    try("rip", -EINVAL);
    context.event_callback_eip = 1UL << 62;
    try("event callback", -EINVAL);
    context.failsafe_callback_eip = 1UL << 62;
    try("failsafe callback", -EINVAL);
    context.syscall_callback_eip = 1UL << 62;
    try("syscall callback", -EINVAL);
    context.trap_ctxt[13].address = 1UL << 62;
    try("trap handler", -EINVAL);
    context.ldt_ents = 1, context.ldt_base = 1UL << 62;
    try("local table", -EINVAL);
    context.ldt_ents = 1, context.ldt_base = 0xffff830000000000;
    try("local table in the hypervisor's range", -EINVAL);
    context.fs_base = 1UL << 62;
    try("FS base", -EINVAL);
    context.gs_base_kernel = 1UL << 62;
    try("kernel GS base", -EINVAL);
    context.gs_base_user = 1UL << 62;
    try("user GS base", -EINVAL);
}

static void tables(void)
{
    u64 *gdt = table_alloc(), *l3 = table_alloc(), *plain = page_alloc();
    rule("tables are what they are used as: -EINVAL, and a refusal keeps none of them");
    context.ctrlreg[3] = mfn_of(plain) << 12;
    try("CR3: memory that is mapped writable", -EINVAL);
    check(pin(3, l3) == 0);
    context.ctrlreg[3] = mfn_of(l3) << 12;
    try("CR3: an L3", -EINVAL);
    context.ctrlreg[3] = 0xffffffUL << 12;
    try("CR3: beyond memory", -EINVAL);
    context.ctrlreg[1] = mfn_of(l3) << 12;
    try("user CR3: an L3", -EINVAL);
    twin("the L3 is let go of", unpin(l3));
    twin("and may be written", page_writable(l3));
    context.gdt_ents = 512, context.gdt_frames[0] = mfn_of(plain);
    try("GDT: memory that is mapped writable", -EINVAL);
    context.gdt_ents = 1024, context.gdt_frames[0] = mfn_of(gdt), context.gdt_frames[1] = 0xffffff;
    try("GDT: its second frame beyond memory", -EINVAL);
    twin("the first may be written", page_writable(gdt));
    check(page_readonly(gdt) == 0);
    context.gdt_ents = 8192 + 1;
    try("GDT: too many entries", -EINVAL);
    context.ldt_ents = 8193, context.ldt_base = (u64)plain;
    try("LDT: too many entries", -EINVAL);
    context.ldt_ents = 1, context.ldt_base = (u64)plain + 8;
    try("LDT: not aligned", -EINVAL);
}

static void once(void)
{
    rule("a vcpu is initialised once, by a good context, and one that there is");
    attack("vcpu 5", xen_vcpu_op(VCPUOP_initialise, 5, &context), -ENOENT);
    attack("vcpu 2^31", xen_vcpu_op(VCPUOP_initialise, 0x80000000, &context), -ENOENT);
    attack("ourselves", xen_vcpu_op(VCPUOP_initialise, 0, &context), -EEXIST);
    attack("up before it", xen_vcpu_op(VCPUOP_up, 1, 0), -EINVAL);
    /* Privilege and debug registers are not the guest's to set: taken, but made harmless. */
    context.user_regs.rflags = 0x3000 | X86_EFLAGS_NT;
    twin("a context that asks for I/O privilege and NT", xen_vcpu_op(VCPUOP_initialise, 1, &context));
    attack("again", xen_vcpu_op(VCPUOP_initialise, 1, &context), -EEXIST);
    twin("up", xen_vcpu_op(VCPUOP_up, 1, 0));
    u64 end = system_time() + PATIENCE;
    while (!said && system_time() < end)
        xen_sched_op(SCHEDOP_yield, 0);
    stays("it runs as any other", said == 1);
}

static struct regs landed;
static volatile u32 landed_on;

static void land(struct regs *r)
{
    landed = *r;
    said = 2;
    for (;;)
        xen_vcpu_op(VCPUOP_down, landed_on, 0);
}

/* The vcpu's first instruction faults, or its failsafe callback is entered. */
static void start(u32 vcpu, const char *label)
{
    vcpu_takes_traps(&context, 0, 19, 0);
    said = 0, landed_on = vcpu, landed.vector = (u64)-1;
    check(xen_vcpu_op(VCPUOP_initialise, vcpu, &context) == 0);
    check(xen_vcpu_op(VCPUOP_up, vcpu, 0) == 0);
    u64 end = system_time() + PATIENCE;
    while (!said && system_time() < end)
        xen_sched_op(SCHEDOP_yield, 0);
    printf("  attack: %s: %s(%lx) cs=%lx ss=%lx, at its first instruction: %d\n", label, vector_name((int)landed.vector),
           landed.error, landed.cs & 0xffff, landed.ss & 0xffff, landed.rip == (u64)second);
    fresh();
}

static void selectors(void)
{
    for (int v = 0; v < VEC_FAILSAFE + 1; v++)
        handlers[v] = land;
    rule("selectors that the guest may not load are its own fault: #GP, or its failsafe callback");
    context.user_regs.cs = 0xe008;
    start(2, "Xen's code segment");
    context.user_regs.ss = 0x1230;
    start(3, "a stack segment beyond the table");
    context.user_regs.ds = 0x1230;
    start(4, "a data segment beyond the table");
}

void guest_main(void)
{
    addresses();
    tables();
    once();
    selectors();
}
