/* vcpu_info registered elsewhere, run-state areas, and the other operations of vcpu_op on vcpu 0. */
#include "guest.h"

const char guest_name[] = "vcpu_info";

#define MS 1000000UL

static int upcalls;
static u32 port;

static void on_event(struct regs *r)
{
    (void)r;
    upcalls++;
    vcpu0->evtchn_upcall_pending = 0;
    vcpu0->evtchn_pending_sel = 0;
    clear_bit(shared_info->evtchn_pending, port);
}

static void send(void)
{
    struct evtchn_port p = {port};
    check(xen_event_channel_op(EVTCHNOP_send, &p) == 0);
}

static s64 place(u64 mfn, u32 offset, u32 vcpu)
{
    struct vcpu_register_vcpu_info r = {mfn, offset, 0};
    return xen_vcpu_op(VCPUOP_register_vcpu_info, vcpu, &r);
}

static void move(void)
{
    char *page = page_alloc();
    struct evtchn_bind_ipi b = {0, 0};
    struct vcpu_info *old = vcpu0, *fresh = (struct vcpu_info *)(page + 128);
    handlers[VEC_EVENT] = on_event;
    check(xen_event_channel_op(EVTCHNOP_bind_ipi, &b) == 0);
    port = b.port;
    clear_bit(shared_info->evtchn_mask, port);
    printf("crosses the page's end: %s\n", error_name(place(mfn_of(page), 4096 - 32, 0)));
    printf("beyond the page: %s\n", error_name(place(mfn_of(page), 4096, 0)));
    printf("offset 1: %s\n", error_name(place(mfn_of(page), 1, 1)));
    printf("no such frame: %s\n", error_name(place(0xffffff, 0, 0)));
    printf("a page table: %s\n", error_name(place(mfn_of((void *)kernel_l4), 0, 0)));
    printf("no such vcpu: %s\n", error_name(place(mfn_of(page), 0, 5)));
    expect_result("register", place(mfn_of(page), 128, 0), 0);
    vcpu0 = fresh;
    printf("new place: mask=%d pending=%d, selector all ones: %d, time record valid: %d\n",
           fresh->evtchn_upcall_mask, fresh->evtchn_upcall_pending, fresh->evtchn_pending_sel == ~0UL,
           fresh->time.version && !(fresh->time.version & 1));
    printf("old place unchanged: mask=%d\n", old->evtchn_upcall_mask);
    vcpu0->evtchn_upcall_pending = 0;
    vcpu0->evtchn_pending_sel = 0;
    send();
    printf("sent: old pending=%d new pending=%d\n", old->evtchn_upcall_pending, fresh->evtchn_upcall_pending);
    check(!old->evtchn_upcall_pending && fresh->evtchn_upcall_pending);
    old->evtchn_upcall_mask = 1;
    events_unmask();
    printf("the new mask counts: upcalls=%d\n", upcalls);
    check(upcalls == 1);
    events_mask();
    u64 value;
    TRY("movq (%1), %0", : "=r"(value) : "r"(0x1234UL));
    printf("cr2 in the new place: %lx\n", fresh->cr2);
    check(fresh->cr2 == 0x1234);
    printf("register again: %s\n", error_name(place(mfn_of(page), 256, 0)));
    printf("unmapping our view: %s\n", error_name(page_readonly(page)));
    check(page_writable(page) == 0);
}

static void run_states(void)
{
    static struct vcpu_runstate_info area, asked;
    u64 address = (u64)&area;
    expect_result("register_runstate", xen_vcpu_op(VCPUOP_register_runstate_memory_area, 0, &address), 0);
    printf("state=%d, entry time set: %d\n", area.state, area.state_entry_time != 0);
    check(area.state == RUNSTATE_running);
    /* On a busy host most of the time may be gone before the sleep begins: the next one is as good. */
    u64 blocked = 0;
    for (int i = 0; i < 100 && blocked < 15 * MS; i++) {
        u64 before = area.time[RUNSTATE_blocked];
        sleep_until(system_time() + 20 * MS);
        blocked = area.time[RUNSTATE_blocked] - before;
    }
    printf("a sleep of 20 ms counts as blocked: %d\n", blocked >= 15 * MS);
    expect_result("get_runstate_info", xen_vcpu_op(VCPUOP_get_runstate_info, 0, &asked), 0);
    printf("state=%d, running at least as long as the area says: %d\n", asked.state,
           asked.time[RUNSTATE_running] >= area.time[RUNSTATE_running]);
    u64 sum = 0, start = system_time();
    for (int i = 0; i < 4; i++)
        sum += asked.time[i];
    printf("the states add up to the time since creation: %d\n", sum <= start && sum > 0);
    address = 0x12345000;
    printf("area not mapped: %s\n", error_name(xen_vcpu_op(VCPUOP_register_runstate_memory_area, 0, &address)));
    address = 1UL << 62;
    printf("area non-canonical: %s\n", error_name(xen_vcpu_op(VCPUOP_register_runstate_memory_area, 0, &address)));
    address = 0;
    printf("no area: %s\n", error_name(xen_vcpu_op(VCPUOP_register_runstate_memory_area, 0, &address)));
    /* With the flag, the top bit of the entry time says that an update is going on. */
    expect_result("vm_assist runstate_update_flag", H2(__HYPERVISOR_vm_assist, VMASST_CMD_enable, 5), 0);
    address = (u64)&area;
    check(xen_vcpu_op(VCPUOP_register_runstate_memory_area, 0, &address) == 0);
    sleep_until(system_time() + 2 * MS);
    printf("update flag at rest: %lu\n", area.state_entry_time >> 63);
}

static void others(void)
{
    static char zero[4096];
    for (u32 op = 0; op < 16; op++) {
        /* Stopping timers and asking for up-ness need no argument; taking the last vcpu down ends us. */
        if (op != VCPUOP_down && op != VCPUOP_register_runstate_memory_area &&
            op != VCPUOP_register_vcpu_time_memory_area && op != VCPUOP_initialise) {
            printf("vcpu_op %u: bad pointer: %s", op, error_name(xen_vcpu_op(op, 0, (void *)0x12345000)));
            printf(", vcpu 1: %s", error_name(xen_vcpu_op(op, 1, zero)));
            printf(", vcpu 9999: %s\n", error_name(xen_vcpu_op(op, 9999, zero)));
        }
    }
    printf("initialise vcpu 0: %s\n", error_name(xen_vcpu_op(VCPUOP_initialise, 0, zero)));
    printf("up vcpu 0: %s\n", error_name(xen_vcpu_op(VCPUOP_up, 0, 0)));
}

void guest_main(void)
{
    move();
    run_states();
    others();
}
