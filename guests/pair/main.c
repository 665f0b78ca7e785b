/* Two domains that share a page and tell each other of it, for ever, until one of them is alone: then that one looks
 * whether all that is its own is as it was, says so and ends. The first offers the page to the domain made next. */
#include "grant.h"

const char guest_name[] = "pair";

enum { SHARED = 8, CONSTANT, WORDS = 500 };
#define OFFERED_PORT 3 /* the first one behind the store's and the console's */
#define MS 1000000UL
#define REPORT 200 /* rounds */
#define HERE (~0UL) /* the first answer, to nothing */

static struct {
    volatile u64 asked, answered; /* rounds */
    volatile u64 words[WORDS];
} *page;
static u32 port;
static u16 peer;
static u64 round = 1, wrong;

static u64 word(u64 of_round, u64 i)
{
    return (of_round << 32 | i) * 0x9e3779b97f4a7c15UL;
}

static void notify(void)
{
    struct evtchn_port send = {port};
    xen_event_channel_op(EVTCHNOP_send, &send);
}

static void wait_for_event(void)
{
    struct sched_poll poll = {&port, 1, system_time() + 100 * MS};
    xen_sched_op(SCHEDOP_poll, &poll);
    clear_bit(shared_info->evtchn_pending, port);
}

static int alone(void)
{
    struct evtchn_status status = {.dom = DOMID_SELF, .port = port};
    check(xen_event_channel_op(EVTCHNOP_status, &status) == 0);
    return status.status != EVTCHNSTAT_interdomain;
}

static void report(const char *what)
{
    if (round % REPORT == 0 || what[0] == 'a')
        printf("pair: %s %lu, wrong %lu\n", what, round, wrong);
}

/* ---- who offers ---- */

static struct grant_entry_v1 *offer(void)
{
    u64 frame, *constant = page_alloc();
    check(grant_frames(1, &frame) == 0);
    struct grant_entry_v1 *table = page_alloc();
    check(map_page((u64)table, frame << 12 | PTE_P | PTE_RW) == 0);
    peer = own_domid() + 1;
    struct evtchn_alloc_unbound unbound = {DOMID_SELF, peer, 0};
    check(xen_event_channel_op(EVTCHNOP_alloc_unbound, &unbound) == 0);
    check((port = unbound.port) == OFFERED_PORT);
    for (u64 i = 0; i < PAGE_SIZE / 8; i++)
        constant[i] = word(0, i);
    table[CONSTANT] = (struct grant_entry_v1){0, peer, (u32)mfn_of(constant)};
    table[CONSTANT].flags = GTF_permit_access | GTF_readonly;
    table[SHARED] = (struct grant_entry_v1){0, peer, (u32)mfn_of(page)};
    table[SHARED].flags = GTF_permit_access;
    return table;
}

static void ask(void)
{
    for (u64 i = 0; i < WORDS; i++)
        page->words[i] = word(round, i);
    page->asked = round;
    notify();
    while (page->answered != round && !alone())
        wait_for_event();
    if (page->answered == round) {
        for (u64 i = 0; i < WORDS; i++)
            wrong += page->words[i] != ~word(round, i);
        report("round");
        round++;
    }
}

static void offering(void)
{
    struct grant_entry_v1 *table = offer();
    while (page->answered == 0)
        wait_for_event();
    while (!alone())
        ask();
    while (table[SHARED].flags & (GTF_reading | GTF_writing) || table[CONSTANT].flags & (GTF_reading | GTF_writing))
        sleep_until(system_time() + MS);
    table[SHARED].flags = table[CONSTANT].flags = 0;
}

/* ---- who takes the offer ---- */

static s64 take(struct grant_map *map)
{
    *map = (struct grant_map){(u64)page, GNTMAP_host_map, SHARED, peer, 99, 0, 0};
    check(grant_op(GNTTABOP_map_grant_ref, map, 1) == 0);
    return map->status;
}

/* The constant page, copied; 0 if there was nothing to copy from. */
static int copy_constant(u64 *to)
{
    struct grant_copy c = {.len = PAGE_SIZE, .flags = 1, .status = 99};
    c.source = (struct grant_copy_end){CONSTANT, peer, 0};
    c.dest = (struct grant_copy_end){mfn_of(to), DOMID_SELF, 0};
    check(grant_op(GNTTABOP_copy, &c, 1) == 0);
    return c.status == GNTST_okay;
}

static void answer(u64 *copy)
{
    round = page->asked;
    for (u64 i = 0; i < WORDS; i++)
        wrong += page->words[i] != word(round, i);
    if (round % 4 == 0 && copy_constant(copy))
        for (u64 i = 0; i < PAGE_SIZE / 8; i++)
            wrong += copy[i] != word(0, i);
    for (u64 i = 0; i < WORDS; i++)
        page->words[i] = ~word(round, i);
    page->answered = round;
    notify();
    report("answer");
}

/* Nobody else has the page any more, and nobody gets it as long as it is mapped here. */
static void keep_for_a_while(void)
{
    for (u64 i = 0; i < WORDS; i++)
        page->words[i] = word(1, i);
    sleep_until(system_time() + 20 * MS);
    for (u64 i = 0; i < WORDS; i++)
        wrong += page->words[i] != word(1, i);
}

static void taking(void)
{
    struct grant_map map;
    struct evtchn_bind_interdomain bind = {peer = own_domid() - 1, OFFERED_PORT, 0};
    u64 *copy = page_alloc();
    check(map_page((u64)page, 0) == 0);
    while (take(&map))
        sleep_until(system_time() + MS); /* it is not ready yet */
    if (xen_event_channel_op(EVTCHNOP_bind_interdomain, &bind))
        return; /* it has ended already */
    port = bind.local_port;
    page->answered = HERE;
    notify();
    while (!alone()) {
        if (page->asked == page->answered || page->asked == 0)
            wait_for_event();
        else
            answer(copy);
        if (round % 8 == 0 && !alone()) {
            check(grant_unmap((u64)page, 0, map.handle) == GNTST_okay);
            if (take(&map))
                return; /* it is alone since just now */
        }
    }
    keep_for_a_while();
    check(grant_unmap((u64)page, 0, map.handle) == GNTST_okay);
}

void guest_main(void)
{
    page = page_alloc();
    xen_vcpu_op(VCPUOP_stop_periodic_timer, 0, 0);
    memset(shared_info->evtchn_mask, 0xff, sizeof(shared_info->evtchn_mask)); /* they are polled for */
    if (starts_with(start_info->cmd_line, "offer"))
        offering();
    else
        taking();
    report("alone after round");
    check(wrong == 0);
}
