/* Guests that end badly, or just end: one way per run, chosen by the command line. */
#include "guest.h"

const char guest_name[] = "hostile";

static int asked(const char *word)
{
    return !memcmp(start_info->cmd_line, word, strlen(word) + 1);
}

static char *hole_between(void)
{
    /* A stack whose lower page is not mapped. */
    char *low = page_alloc(), *high = page_alloc();
    check(high == low + PAGE_SIZE);
    check(map_page((u64)low, 0) == 0);
    return high;
}

static void jump_without_handlers(void)
{
    xen_set_trap_table(0);
    ((void (*)(void))0x12345000)();
}

static void fault_on_bad_stack(void)
{
    asm volatile("movq %0, %%rsp; movl 0x12345000, %%eax; ud2" ::"r"(0x23456000UL));
}

static void fault_without_stack(void)
{
    asm volatile("xorl %esp, %esp; ud2");
}

static void fault_on_wild_stack(void)
{
    asm volatile("movq %0, %%rsp; ud2" ::"r"(1UL << 63));
}

static void jump_to_no_address(void)
{
    xen_set_trap_table(0);
    asm volatile("jmp *%0" ::"r"(1UL << 63));
}

static void fault_on_hole(void)
{
    /* There is room for part of the frame only. */
    asm volatile("movq %0, %%rsp; ud2" ::"r"(hole_between() + 16));
}

static void faulting_handler(void)
{
    /* Each page fault's handler is itself not mapped, until the stack is used up. */
    char *stack = hole_between() + PAGE_SIZE;
    set_gate(14, 0, FLAT_KERNEL_CS, 0x12345000);
    asm volatile("movq %0, %%rsp; movl 0x23456000, %%eax; ud2" ::"r"(stack));
}

static void user_without_tables(void)
{
    struct regs r;
    user_frame(&r);
    resume(&r);
}

static void user_fault_without_stack(void)
{
    static const u8 code[] = {0x0f, 0x0b};
    struct regs r;
    user_init();
    user_frame(&r);
    xen_stack_switch(FLAT_KERNEL_SS, 0x23456000);
    run_user(code, sizeof(code), &r);
}

static void iret_on_bad_stack(void)
{
    asm volatile("movq %0, %%rsp; movl %1, %%eax; syscall" ::"r"(0x23456000UL), "i"(__HYPERVISOR_iret));
}

static void event_without_callback(void)
{
    struct evtchn_bind_ipi b = {0, 0};
    xen_event_channel_op(EVTCHNOP_bind_ipi, &b);
    clear_bit(shared_info->evtchn_mask, b.port);
    xen_set_trap_table(0);
    H3(__HYPERVISOR_set_callbacks, 0x12345000, failsafe_callback, syscall_callback);
    struct evtchn_port p = {b.port};
    vcpu0->evtchn_upcall_mask = 0;
    xen_event_channel_op(EVTCHNOP_send, &p);
}

static void unmap_ourselves(void)
{
    /* Taking away the code we run on: the next fetch faults, and so does every handler. */
    u64 *l2 = entry_of((u64)image_start, 2);
    set_entry(l2, 0);
    mmuext(MMUEXT_TLB_FLUSH_LOCAL, 0, 0);
}

static void write_own_table(void)
{
    /* Its own entry in the table that maps it, made writable by a plain store: the fault has no handler. */
    u64 *l1 = (u64 *)((u64)pte_of((u64)image_start) & PAGE_MASK);
    xen_set_trap_table(0);
    H2(__HYPERVISOR_vm_assist, VMASST_CMD_enable, 2); /* emulated writes */
    *pte_of((u64)l1) = machine_of(l1) | PTE_P | PTE_RW;
}

static void last_vcpu_down(void)
{
    printf("TEST %s: PASS\n", guest_name);
    xen_vcpu_op(VCPUOP_down, 0, 0);
    printf("still here\n");
}

static void block_for_ever(void)
{
    /* No event can come any more. A guest may do that; a watchdog ends it. */
    struct {
        u32 id, timeout;
    } w = {0, 1};
    xen_sched_op(SCHEDOP_watchdog, &w);
    memset(shared_info->evtchn_mask, 0xff, sizeof(shared_info->evtchn_mask));
    xen_vcpu_op(VCPUOP_stop_periodic_timer, 0, 0);
    for (;;)
        xen_sched_op(SCHEDOP_block, 0);
}

static void loop(void)
{
    events_mask();
    for (;;)
        ;
}

static void spin(void)
{
    struct {
        u32 id, timeout;
    } w = {0, 1};
    xen_sched_op(SCHEDOP_watchdog, &w);
    loop();
}

static void end_by(u32 reason)
{
    shutdown(reason);
}

void guest_main(void)
{
    static const struct {
        const char *word;
        void (*run)(void);
    } ways[] = {
        {"jump", jump_without_handlers},
        {"stack", fault_on_bad_stack},
        {"zerostack", fault_without_stack},
        {"wildstack", fault_on_wild_stack},
        {"wildjump", jump_to_no_address},
        {"loop", loop},
        {"hole", fault_on_hole},
        {"handler", faulting_handler},
        {"notables", user_without_tables},
        {"nostack", user_fault_without_stack},
        {"iret", iret_on_bad_stack},
        {"event", event_without_callback},
        {"unmap", unmap_ourselves},
        {"write", write_own_table},
        {"down", last_vcpu_down},
        {"block", block_for_ever},
        {"spin", spin},
    };
    static const char *const reasons[] = {"poweroff", "reboot", "suspend", "crash", "watchdog"};
    printf("going to end by: %s\n", start_info->cmd_line);
    for (u64 i = 0; i < ARRAY_SIZE(ways); i++)
        if (asked(ways[i].word))
            ways[i].run();
    for (u32 i = 0; i < ARRAY_SIZE(reasons); i++)
        if (asked(reasons[i])) {
            if (!i)
                printf("TEST %s: PASS\n", guest_name);
            end_by(i);
        }
    failures++;
}
