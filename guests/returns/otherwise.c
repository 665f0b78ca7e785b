/* What a kernel may do before it goes back, so that where it goes is not quite where its process was left. */
#include "returns.h"

#define CODE32 0x00cffb000000ffffUL
#define CODE64 0x00affb000000ffffUL
#define OWN_CS 0x13
#define TOUCHED 0x510000UL
#define BEFORE 3 /* plain returns before anything else is done */

#define CALLS "syscall; syscall; syscall;"
USER_ASM(u_skipped, CALLS "incq 0x500000; incq 0x500008; int3");
USER_ASM(u_stack, CALLS "movq %rsp, 0x500000; int3");
USER_ASM(u_flags, CALLS "pushfq; popq 0x500000; int3");
USER_ASM(u_clobbered, CALLS "movq %rcx, 0x500000; movq %r11, 0x500008; int3");
USER_ASM(u_gs, "1: movq %gs:0, %rax; syscall; jmp 1b; int3");
USER_ASM(u_here, CALLS "movq $1, 0x500000; movq 0x500008, %rbx; int3");
USER_ASM(u_there, CALLS "movq $2, 0x500000; movq 0x500008, %rbx; int3");
USER_ASM(u_steps, CALLS "nop; nop; nop; nop; int3");
USER_ASM(u_call, "1: syscall; jmp 1b; int3");
USER_ASM(u_divide, CALLS "divb 0x500110; int3");
USER_ASM(u_again, "1: ud2; int3");
USER_ASM(u_looks, CALLS "movabsq 0xffff81000000c000, %rax; int3");
USER_ASM(u_touch, "1: movq 0x510000, %rbx; syscall; jmp 1b; int3");
/* 64-bit code adds 1 to rax; to 32-bit code that is two instructions, which leave eax as it was. */
USER_ASM(u_width, "int $0x80; int $0x80; int $0x80; .byte 0x48, 0xff, 0xc0; ud2");
USER_ASM(u_masked, CALLS "incq 0x500000; syscall; incq 0x500000; syscall; incq 0x500000; syscall; incq 0x500000; int3");

static int calls, came;
static u32 ipi;
static void (*change)(struct regs *);

static void on_call(struct regs *r)
{
    if (++calls == BEFORE)
        change(r);
}

static void on_quiet(struct regs *r)
{
    (void)r;
    came++;
    vcpu0->evtchn_upcall_pending = 0;
    vcpu0->evtchn_pending_sel = 0;
    clear_bit(shared_info->evtchn_pending, ipi);
}

static void begin(struct regs *r)
{
    user_frame(r);
    memset((void *)USER_DATA, 0, PAGE_SIZE);
    calls = came = 0;
}

/* The third time the process comes to the kernel, that does something. */
static void with(u64 vector, const char *code, const char *end, void (*what)(struct regs *), u64 cs)
{
    struct regs r;
    begin(&r);
    r.cs = cs;
    r.rax = 5;
    change = what;
    handlers[vector] = on_call;
    process(code, end, &r);
}

#define WITH(code, what) with(VEC_SYSCALL, code, code##_end, what, FLAT_USER_CS)

/* ---- another frame ---- */

static void skip(struct regs *r)
{
    r->rip += 8;
}

static void move_stack(struct regs *r)
{
    r->rsp -= 64;
}

static void set_flags(struct regs *r)
{
    r->rflags |= X86_EFLAGS_CF | X86_EFLAGS_ID;
}

static void in_syscall(struct regs *r)
{
    r->error = VGCF_in_syscall;
    r->rcx = 0x1234;
    r->r11 = 0x5678;
}

static void narrow(struct regs *r)
{
    r->cs = FLAT_USER_CS32;
}

static void widen(struct regs *r)
{
    r->cs = FLAT_USER_CS;
}

/* Just as it was, from another place. */
static void elsewhere(struct regs *r)
{
    static struct regs copy;
    copy = *r;
    resume(&copy);
}

static void nothing(struct regs *r)
{
    (void)r;
}

/* Code that begins with that selector, and tells in the end how wide it is: rax is 6 after 64-bit code, else 5. */
static void width(const char *label, void (*what)(struct regs *), u64 cs, u64 rax)
{
    with(0x80, u_width, u_width_end, what, cs);
    printf("%s: %s, cs=%lx rax=%lx\n", label, vector_name((int)user_exit.vector), user_exit.cs & 0xffff, user_exit.rax);
    check(user_exit.rax == rax);
}

static void frames(void)
{
    WITH(u_skipped, skip);
    printf("another rip: %lu %lu\n", SAVED[0], SAVED[1]);
    check(SAVED[0] == 0 && SAVED[1] == 1);
    WITH(u_skipped, elsewhere);
    printf("the same frame elsewhere: %lu %lu\n", SAVED[0], SAVED[1]);
    check(SAVED[0] == 1 && SAVED[1] == 1);
    WITH(u_stack, move_stack);
    printf("another rsp: %ld\n", SAVED[0] - USER_STACK_TOP);
    check(SAVED[0] == USER_STACK_TOP - 64);
    WITH(u_flags, set_flags);
    printf("other flags: %lx\n", SAVED[0]);
    check((SAVED[0] & 0x200001) == 0x200001);
    WITH(u_clobbered, in_syscall);
    printf("in_syscall: rcx is rip %d, r11=%lx\n", SAVED[0] == USER_CODE + 6, SAVED[1]);
    check(SAVED[0] == USER_CODE + 6);
    width("64-bit code", nothing, FLAT_USER_CS, 6);
    width("64-bit code that becomes 32-bit code", narrow, FLAT_USER_CS, 5);
    width("32-bit code", nothing, FLAT_USER_CS32, 5);
    width("32-bit code that becomes 64-bit code", widen, FLAT_USER_CS32, 6);
}

/* ---- descriptors and bases ---- */

static u64 *gdt;

static void change_descriptor(struct regs *r)
{
    (void)r;
    check(H2(__HYPERVISOR_update_descriptor, machine_of(&gdt[OWN_CS / 8]), CODE32) == 0);
}

static void change_back(struct regs *r)
{
    (void)r;
    check(H2(__HYPERVISOR_update_descriptor, machine_of(&gdt[OWN_CS / 8]), CODE64) == 0);
}

/* An event keeps the process from seeing the change at once: it is made by the return before the last. */
static void change_and_interrupt(struct regs *r)
{
    change_descriptor(r);
    by_hand(ipi);
}

static void drop_table(struct regs *r)
{
    (void)r;
    check(H2(__HYPERVISOR_set_gdt, 0, 0) == 0);
}

static void descriptors(void)
{
    u64 frame;
    gdt = page_alloc();
    gdt[OWN_CS / 8] = CODE64;
    frame = mfn_of(gdt);
    check(page_readonly(gdt) == 0);
    check(H2(__HYPERVISOR_set_gdt, &frame, 512) == 0);
    width("a descriptor of its own", nothing, OWN_CS, 6);
    width("which changes", change_descriptor, OWN_CS, 5);
    width("and back", change_back, OWN_CS, 6);
    handlers[VEC_EVENT] = on_quiet;
    with(0x80, u_width, u_width_end, change_and_interrupt, OWN_CS);
    printf("%d event, and then: rax=%lx\n", came, user_exit.rax);
    check(came == 1 && user_exit.rax == 5);
    check(H2(__HYPERVISOR_update_descriptor, machine_of(&gdt[OWN_CS / 8]), CODE64) == 0);
    width("and is no more", drop_table, OWN_CS, 5);
    printf("error %lx\n", user_exit.error);
    check(user_exit.vector == 13 && user_exit.error == (OWN_CS & ~3));
}

/* Where GS leads to, by the number of the call: with no base to address 0, where there is nothing. */
static void on_gs(struct regs *r)
{
    static const u64 bases[] = {0, 8, 0, 0, 16, 16};
    calls++;
    if (calls > 4 * (int)ARRAY_SIZE(bases)) {
        r->rip = USER_CODE + (u64)(u_gs_end - u_gs) - 1;
        return;
    }
    u64 base = bases[calls % (int)ARRAY_SIZE(bases)];
    u64 last = bases[(calls - 1) % (int)ARRAY_SIZE(bases)];
    if (calls > 1)
        SAVED[4] += r->rax != (last ? SAVED[last / 8] : 0x77);
    if (base != last)
        check(xen_set_segment_base(SEGBASE_GS_USER, base ? USER_DATA + base : 0) == 0);
}

static void on_no_gs(struct regs *r)
{
    SAVED[5]++;
    r->rax = 0x77;
    r->rip = USER_CODE + 9; /* behind the access */
}

static void bases(void)
{
    struct regs r;
    begin(&r);
    SAVED[1] = 0x1111;
    SAVED[2] = 0x2222;
    handlers[VEC_SYSCALL] = on_gs;
    handlers[14] = on_no_gs;
    process(u_gs, u_gs_end, &r);
    check(xen_set_segment_base(SEGBASE_GS_USER, 0) == 0);
    printf("bases of GS, one after the other: %lu wrong, %lu faults\n", SAVED[4], SAVED[5]);
    check(SAVED[4] == 0 && user_exit.vector == 3);
}

/* ---- another address space ---- */

static u64 other_l4;
static void *other_data;

static void change_space(struct regs *r)
{
    (void)r;
    check(mmuext(MMUEXT_NEW_USER_BASEPTR, mfn_of((void *)other_l4), 0) == 0);
}

static void change_space_and_interrupt(struct regs *r)
{
    change_space(r);
    by_hand(ipi);
}

static void change_page(struct regs *r)
{
    (void)r;
    check(map_page(USER_DATA, mfn_of(other_data) << 12 | PTE_P | PTE_RW | PTE_US) == 0);
}

static void make_other_space(void)
{
    char *code = page_alloc();
    other_data = page_alloc();
    ((u64 *)other_data)[1] = 0x33;
    memset(code, 0x0f, PAGE_SIZE);
    memcpy(code, u_there, (u64)(u_there_end - u_there));
    other_l4 = (u64)table_alloc();
    map_in(other_l4, USER_CODE, mfn_of(code) << 12 | PTE_P | PTE_RW | PTE_US);
    map_in(other_l4, USER_DATA, mfn_of(other_data) << 12 | PTE_P | PTE_RW | PTE_US);
    check(mmuext(MMUEXT_PIN_L4_TABLE, mfn_of((void *)other_l4), 0) == 0);
}

static void spaces(void)
{
    u64 first = *pte_of(USER_DATA);
    make_other_space();
    WITH(u_here, change_space);
    printf("another address space: %lu %lu, rbx=%lx\n", SAVED[0], ((u64 *)other_data)[0], user_exit.rbx);
    check(SAVED[0] == 0 && ((u64 *)other_data)[0] == 2 && user_exit.rbx == 0x33);
    check(mmuext(MMUEXT_NEW_USER_BASEPTR, mfn_of((void *)user_l4), 0) == 0);
    ((u64 *)other_data)[0] = 0;
    handlers[VEC_EVENT] = on_quiet;
    WITH(u_here, change_space_and_interrupt);
    printf("%d event, and then another address space: %lu %lu\n", came, SAVED[0], ((u64 *)other_data)[0]);
    check(came == 1 && SAVED[0] == 0 && ((u64 *)other_data)[0] == 2);
    check(mmuext(MMUEXT_NEW_USER_BASEPTR, mfn_of((void *)user_l4), 0) == 0);
    WITH(u_here, change_page);
    printf("another page: %lu %lu, rbx=%lx\n", SAVED[0], ((u64 *)other_data)[0], user_exit.rbx);
    check(((u64 *)other_data)[0] == 1 && user_exit.rbx == 0x33);
    check(map_page(USER_DATA, first) == 0);
    check(SAVED[0] == 0);
}

/* Where an engine may keep things that only kernels see: see hypervisor_range and ring0_pages. */
#define HIDDEN 0xffff81000000c000UL

static u64 former_l4;

static void change_to_former(struct regs *r)
{
    (void)r;
    check(mmuext(MMUEXT_NEW_USER_BASEPTR, mfn_of((void *)former_l4), 0) == 0);
    by_hand(ipi);
}

/* A process gets a table that was its kernel's, and sees no more in it than before. */
static void former_tables(void)
{
    former_l4 = (u64)root_copy(kernel_l4);
    check(mmuext(MMUEXT_PIN_L4_TABLE, mfn_of((void *)former_l4), 0) == 0);
    check(mmuext(MMUEXT_NEW_BASEPTR, mfn_of((void *)former_l4), 0) == 0);
    check(xen_sched_op(SCHEDOP_yield, 0) == 0);
    check(mmuext(MMUEXT_NEW_BASEPTR, mfn_of((void *)kernel_l4), 0) == 0);
    handlers[VEC_EVENT] = on_quiet;
    WITH(u_looks, change_to_former);
    printf("%d event, and then a table that was the kernel's: %s, at that address %d\n", came,
           vector_name((int)user_exit.vector), user_exit_cr2 == HIDDEN);
    check(came == 1 && user_exit.vector == 14 && user_exit_cr2 == HIDDEN);
    check(mmuext(MMUEXT_NEW_USER_BASEPTR, mfn_of((void *)user_l4), 0) == 0);
}

/* ---- pages that come and go ---- */

static u64 *pages[4];
static int wrong, wanted;

static void map_touched(struct regs *r)
{
    wrong += vcpu0->cr2 != TOUCHED || r->rip != USER_CODE;
    wrong += set_entry(pte_of(TOUCHED), mfn_of(pages[calls % 4]) << 12 | PTE_P | PTE_RW | PTE_US) != 0;
    r->error = 0;
    came++;
}

static void unmap_touched(struct regs *r)
{
    wrong += r->rbx != 0x100UL + (u64)calls % 4 || came != calls + 1;
    wrong += set_entry(pte_of(TOUCHED), 0) != 0;
    wrong += mmuext(MMUEXT_TLB_FLUSH_LOCAL, 0, 0) != 0;
    if (++calls == wanted)
        r->rip = USER_CODE + (u64)(u_touch_end - u_touch) - 1;
}

/* So many updates that an engine may come to put them off. */
static void faults(void)
{
    struct regs r;
    for (u64 i = 0; i < ARRAY_SIZE(pages); i++) {
        pages[i] = page_alloc();
        *pages[i] = 0x100 + i;
    }
    begin(&r);
    wanted = 1500;
    handlers[14] = map_touched;
    handlers[VEC_SYSCALL] = unmap_touched;
    process(u_touch, u_touch_end, &r);
    printf("a page that comes and goes: %d faults, %d wrong\n", came, wrong);
    check(wrong == 0 && user_exit.vector == 3);
}

/* ---- other ways into the kernel ---- */

static char side_stack[8192] __attribute__((aligned(16)));
static u64 seen_at;

static void on_ways(struct regs *r)
{
    u64 offset = (u64)r - (u64)side_stack;
    switch (++calls) {
    case 3:
        seen_at = (u64)r;
        check(xen_stack_switch(FLAT_KERNEL_SS, (u64)side_stack + sizeof(side_stack)) == 0);
        break;
    case 4:
        printf("after stack_switch: on the new stack %d\n", offset < sizeof(side_stack));
        check(offset < sizeof(side_stack));
        check(xen_stack_switch(FLAT_KERNEL_SS, seen_at + sizeof(*r)) == 0);
        break;
    case 5:
        printf("and back: where it was %d, events masked %d\n", (u64)r == seen_at, vcpu0->evtchn_upcall_mask);
        check((u64)r == seen_at);
        check(register_callback(CALLBACKTYPE_syscall, 0, syscall_callback) == 0);
        break;
    case 6:
        printf("after callback_op: events masked %d\n", vcpu0->evtchn_upcall_mask);
        check(!vcpu0->evtchn_upcall_mask);
        check(register_callback(CALLBACKTYPE_syscall, CALLBACKF_mask_events, syscall_callback) == 0);
        break;
    case 8:
        r->rip = USER_CODE + (u64)(u_call_end - u_call) - 1;
    }
}

static void on_undefined(struct regs *r)
{
    printf("gate %lx: events masked %d\n", r->vector, vcpu0->evtchn_upcall_mask);
    switch (++calls) {
    case 2:
        check(set_gate(6, 4, FLAT_KERNEL_CS, TRAP_STUB(0xa0UL)) == 0);
        break;
    case 4:
        check(r->vector == 0xa0 && vcpu0->evtchn_upcall_mask);
        check(set_gate(6, 0, FLAT_KERNEL_CS, TRAP_STUB(6UL)) == 0);
        break;
    case 5:
        check(r->vector == 6 && !vcpu0->evtchn_upcall_mask);
        r->rip = USER_CODE + (u64)(u_again_end - u_again) - 1;
    }
}

static void ways_in(void)
{
    struct regs r;
    begin(&r);
    handlers[VEC_SYSCALL] = on_ways;
    process(u_call, u_call_end, &r);
    begin(&r);
    handlers[6] = handlers[0xa0] = on_undefined;
    process(u_again, u_again_end, &r);
}

/* ---- single steps ---- */

static void step(struct regs *r)
{
    r->rflags |= X86_EFLAGS_TF;
}

static void on_step(struct regs *r)
{
    printf("step to +%lu\n", r->rip - USER_CODE);
    if (++came == 3)
        r->rflags &= ~(u64)X86_EFLAGS_TF;
}

static void steps(void)
{
    struct regs r;
    begin(&r);
    change = step;
    handlers[VEC_SYSCALL] = on_call;
    handlers[1] = on_step;
    process(u_steps, u_steps_end, &r);
    printf("%d steps, then %s at +%lu\n", came, vector_name((int)user_exit.vector), user_exit.rip - USER_CODE);
    check(came == 3 && user_exit.vector == 3);
}

/* ---- events ---- */

static void on_ipi(struct regs *r)
{
    printf("event: cs=%lx, process at %lu, mask saved %lu\n", r->cs & 0xffff, SAVED[0], r->cs >> 32 & 0xff);
    on_quiet(r);
}

static void on_masked(struct regs *r)
{
    calls++;
    if (calls >= BEFORE)
        printf("call %d: mask saved %lu, IF %d, %d events\n", calls, r->cs >> 32 & 0xff,
               !!(r->rflags & X86_EFLAGS_IF), came);
    if (calls == 3) {
        r->rflags &= ~(u64)X86_EFLAGS_IF;
        by_hand(ipi);
    } else if (calls == 5) {
        r->rflags |= X86_EFLAGS_IF;
    }
}

static void masked(void)
{
    struct regs r;
    begin(&r);
    handlers[VEC_SYSCALL] = on_masked;
    handlers[VEC_EVENT] = on_ipi;
    process(u_masked, u_masked_end, &r);
    check(came == 1 && SAVED[0] == 4 && user_exit.vector == 3);
}

static struct regs outer;
static int leaves_at_once;

/* In the midst of the kernel's own handler, to which it goes back; or at once to the process. */
static void on_nested(struct regs *r)
{
    wrong += (r->cs & 3) != 0;
    on_quiet(r);
    if (leaves_at_once)
        resume(&outer);
}

static void on_unmasked(struct regs *r)
{
    struct evtchn_port p = {ipi};
    wrong += vcpu0->evtchn_upcall_mask != 0 || came != calls;
    if (calls++ == wanted) {
        r->rip = USER_CODE + (u64)(u_again_end - u_again) - 1;
        return;
    }
    outer = *r;
    outer.error = 0;
    xen_event_channel_op(EVTCHNOP_send, &p);
    wrong += came != calls || leaves_at_once;
}

static void nested(int at_once)
{
    struct regs r;
    begin(&r);
    wrong = 0;
    wanted = 200;
    leaves_at_once = at_once;
    handlers[6] = on_unmasked;
    handlers[VEC_EVENT] = on_nested;
    process(u_again, u_again_end, &r);
    printf("events in the kernel's own handler%s: %d, %d wrong\n", at_once ? ", which is not gone back to" : "", came,
           wrong);
    check(wrong == 0 && came == 200 && user_exit.vector == 3);
}

/* ---- divide errors ---- */

extern char kernel_divides[], kernel_has_divided[];

static void on_divide(struct regs *r)
{
    if ((r->cs & 3) == 0) {
        printf("#DE in the kernel: at its instruction %d\n", r->rip == (u64)kernel_divides);
        check(r->rip == (u64)kernel_divides);
        r->rip = (u64)kernel_has_divided;
        return;
    }
    printf("#DE in the process: at +%lu\n", r->rip - USER_CODE);
    check(r->rip == USER_CODE + 6);
    if (++came == 3)
        r->rip = USER_CODE + (u64)(u_divide_end - u_divide) - 1;
}

static void divide(struct regs *r)
{
    static char zero;
    (void)r;
    asm volatile("kernel_divides: divb %0\nkernel_has_divided:" : : "m"(zero) : "rax");
}

static void divisions(void)
{
    struct regs r;
    begin(&r);
    change = divide;
    handlers[VEC_SYSCALL] = on_call;
    handlers[0] = on_divide;
    process(u_divide, u_divide_end, &r);
    printf("then %s\n", vector_name((int)user_exit.vector));
    check(came == 3 && user_exit.vector == 3);
}

void otherwise(void)
{
    ipi = bind_ipi();
    check(set_gate(0x80, 3, FLAT_KERNEL_CS, TRAP_STUB(0x80UL)) == 0);
    frames();
    descriptors();
    bases();
    spaces();
    former_tables();
    faults();
    ways_in();
    steps();
    masked();
    nested(0);
    nested(1);
    divisions();
}
