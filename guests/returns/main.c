/*
 * Returns to where a process was left: what arrives there, events on the way, and what must not be taken for such a
 * return.  An engine may make them by itself, as long as nobody can tell.
 */
#include "returns.h"

const char guest_name[] = "returns";

u64 random_word(void)
{
    static u64 state = 88172645463325252UL;
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

void by_hand(u32 event)
{
    set_bit(shared_info->evtchn_pending, event);
    set_bit(&vcpu0->evtchn_pending_sel, event / 64);
    vcpu0->evtchn_upcall_pending = 1;
}

u32 bind_ipi(void)
{
    struct evtchn_bind_ipi b = {0, 0};
    check(xen_event_channel_op(EVTCHNOP_bind_ipi, &b) == 0);
    clear_bit(shared_info->evtchn_mask, b.port);
    return b.port;
}

void process(const char *code, const char *end, struct regs *r)
{
    run_user(code, (u64)(end - code), r);
    memset(handlers, 0, sizeof(handlers));
}

/* As near to the end of a page as it can be. */
static void move_vcpu_info(void)
{
    char *page = page_alloc();
    struct vcpu_register_vcpu_info r = {mfn_of(page), PAGE_SIZE - sizeof(struct vcpu_info), 0};
    expect_result("register_vcpu_info", xen_vcpu_op(VCPUOP_register_vcpu_info, 0, &r), 0);
    vcpu0 = (struct vcpu_info *)(page + r.offset);
    vcpu0->evtchn_upcall_pending = 0;
    vcpu0->evtchn_pending_sel = 0;
}

void guest_main(void)
{
    user_init();
    if (asked_for("ticks")) {
        move_vcpu_info();
        ticks();
        return;
    }
    registers(200);
    events(40);
    move_vcpu_info();
    registers(3000);
    events(800);
    otherwise();
}
