/* Events that are pending when a kernel goes back: the process does not come before them. */
#include "returns.h"

USER_ASM(u_count, "1: syscall; incq 0x500000; jmp 1b; int3");

static u32 ipi;
static int calls, expected, came, wanted, wrong;

static void send(void)
{
    struct evtchn_port p = {ipi};
    wrong += xen_event_channel_op(EVTCHNOP_send, &p) != 0;
}

/* The process has made a call: what it did before is done, and events are no longer on their way. */
static void on_call(struct regs *r)
{
    wrong += SAVED[0] != (u64)calls || came != expected;
    wrong += (r->cs >> 32 & 0xff) != 0 || !(r->rflags & X86_EFLAGS_IF) || vcpu0->evtchn_upcall_mask != 1;
    if (calls++ == wanted) {
        r->rip = USER_CODE + (u64)(u_count_end - u_count) - 1;
        return;
    }
    if (calls % 8 == 1 || calls % 8 == 4)
        send();
    if (calls % 8 == 3 || calls % 8 == 4)
        by_hand(ipi);
    expected += calls % 8 == 1 || calls % 8 == 3 || calls % 8 == 4;
}

static void on_ipi(struct regs *r)
{
    came++;
    wrong += r->rip != USER_CODE + 2 || r->cs != FLAT_USER_CS || SAVED[0] != (u64)calls - 1;
    wrong += vcpu0->evtchn_upcall_mask != 1 || !(r->rflags & X86_EFLAGS_IF);
    vcpu0->evtchn_upcall_pending = 0;
    vcpu0->evtchn_pending_sel = 0;
    wrong += !test_and_clear_bit(shared_info->evtchn_pending, ipi);
}

void events(int times)
{
    struct regs r;
    if (!ipi)
        ipi = bind_ipi();
    user_frame(&r);
    calls = expected = came = wrong = 0;
    wanted = times;
    SAVED[0] = 0;
    handlers[VEC_SYSCALL] = on_call;
    handlers[VEC_EVENT] = on_ipi;
    PROCESS(u_count, &r);
    printf("%d calls, events at the end of some: %d came, %d wrong\n", calls, came, wrong);
    check(came == expected && wrong == 0 && user_exit.vector == 3);
}
