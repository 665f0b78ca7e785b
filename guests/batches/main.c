/*
 * Two guests of one machine, by the command line: one that never does anything but the longest legal batches of one
 * kind ("updates", "calls", "copies", "memory", "exchange", "events", "pins"), and one ("measure") that says how late
 * its timer came at worst. No transcript: what it says is judged by the test that runs it.
 */
#include "grant.h"

const char guest_name[] = "batches";

#define REQUESTS 4096
#define FRAMES 1024
#define FIRST_PFN 2048
#define PERIOD 5000000UL
#define TIMES 100

static struct mmu_update updates[REQUESTS];
static struct multicall_entry calls[REQUESTS];
static u64 list[FRAMES], other[FRAMES];
static struct {
    struct {
        u64 u;
        u16 domid, offset;
    } source, dest;
    u16 len, flags;
    short status;
} copies[REQUESTS];

static void prepare_updates(void)
{
    void *page = page_alloc();
    u64 *entry = pte_of((u64)page);
    for (u64 i = 0; i < REQUESTS; i++)
        updates[i] = (struct mmu_update){machine_of(entry), i & 1 ? *entry : 0};
}

static void one_updates(void)
{
    check(xen_mmu_update(updates, REQUESTS, 0, DOMID_SELF) == 0);
}

/* A batch of batches: of updates, of whole reservations and of events by turns. */
static void one_calls(void)
{
    static struct xen_memory_reservation give = {list, 200, 0, 0, DOMID_SELF}, take = {list, 200, 0, 0, DOMID_SELF};
    for (u64 i = 0; i < 200; i++)
        list[i] = p2m[FIRST_PFN + i];
    for (u64 i = 0; i < REQUESTS; i++)
        calls[i] = (struct multicall_entry){__HYPERVISOR_mmu_update, 0, {(u64)updates, 64, 0, DOMID_SELF}};
    for (u64 i = 0; i < 64; i += 2) {
        calls[i] = (struct multicall_entry){__HYPERVISOR_memory_op, 0, {XENMEM_decrease_reservation, (u64)&give}};
        calls[i + 1] = (struct multicall_entry){__HYPERVISOR_memory_op, 0, {XENMEM_increase_reservation, (u64)&take}};
    }
    check(xen_multicall(calls, REQUESTS) == 0);
    for (u64 i = 0; i < 200; i++)
        p2m[FIRST_PFN + i] = list[i];
}

static void prepare_copies(void)
{
    u64 from = mfn_of(page_alloc()), to = mfn_of(page_alloc());
    for (u64 i = 0; i < REQUESTS; i++) {
        copies[i].source.u = from, copies[i].source.domid = DOMID_SELF;
        copies[i].dest.u = to, copies[i].dest.domid = DOMID_SELF;
        copies[i].len = 4096;
    }
}

static void one_copies(void)
{
    check(grant_op(GNTTABOP_copy, copies, REQUESTS) == 0);
}

static void one_memory(void)
{
    struct xen_memory_reservation r = {list, FRAMES, 0, 0, DOMID_SELF};
    for (u64 i = 0; i < FRAMES; i++)
        list[i] = p2m[FIRST_PFN + i];
    check(xen_memory_op(XENMEM_decrease_reservation, &r) == FRAMES);
    for (u64 i = 0; i < FRAMES; i++)
        list[i] = FIRST_PFN + i;
    check(xen_memory_op(XENMEM_populate_physmap, &r) == FRAMES);
    for (u64 i = 0; i < FRAMES; i++)
        p2m[FIRST_PFN + i] = list[i];
}

static void one_exchange(void)
{
    struct {
        struct xen_memory_reservation in, out;
        u64 nr_exchanged;
    } e = {{list, FRAMES, 0, 0, DOMID_SELF}, {other, FRAMES, 0, 0, DOMID_SELF}, 0};
    for (u64 i = 0; i < FRAMES; i++)
        list[i] = p2m[FIRST_PFN + i], other[i] = FIRST_PFN + i;
    check(xen_memory_op(XENMEM_exchange, &e) == 0);
    for (u64 i = 0; i < FRAMES; i++)
        p2m[FIRST_PFN + i] = other[i];
}

static u32 port;

static void prepare_events(void)
{
    struct evtchn_bind_ipi ipi = {0, 0};
    check(xen_event_channel_op(EVTCHNOP_bind_ipi, &ipi) == 0);
    port = ipi.port;
    for (u64 i = 0; i < REQUESTS; i++)
        calls[i] = (struct multicall_entry){__HYPERVISOR_event_channel_op, 0, {EVTCHNOP_send, (u64)&port}};
}

static void one_events(void)
{
    check(xen_multicall(calls, REQUESTS) == 0);
}

/* 256 full L1 tables under one L2, pinned and unpinned. */
static u64 *middle;

static void prepare_pins(void)
{
    static u64 window[512] __attribute__((aligned(4096)));
    u64 kept = *pte_of((u64)window);
    middle = page_alloc();
    for (u64 i = 0; i < 256; i++) {
        check(map_page((u64)window, p2m[FIRST_PFN + i] << 12 | PTE_P | PTE_RW) == 0);
        for (u64 e = 0; e < 512; e++)
            window[e] = p2m[FIRST_PFN + 256] << 12 | PTE_P;
        middle[i] = p2m[FIRST_PFN + i] << 12 | PTE_TABLE;
    }
    check(map_page((u64)window, kept) == 0);
    check(page_readonly(middle) == 0);
}

static void one_pins(void)
{
    check(pin(2, middle) == 0);
    check(unpin(middle) == 0);
}

static void nothing(void)
{
}

static const struct {
    const char *name;
    void (*prepare)(void), (*once)(void);
} kinds[] = {
    {"updates", prepare_updates, one_updates}, {"calls", prepare_updates, one_calls},
    {"copies", prepare_copies, one_copies},    {"memory", nothing, one_memory},
    {"exchange", nothing, one_exchange},       {"events", prepare_events, one_events},
    {"pins", prepare_pins, one_pins},
};

static void measure(void)
{
    u64 worst = 0, due = system_time();
    for (int i = 0; i < TIMES; i++) {
        due += PERIOD;
        sleep_until(due);
        u64 now = system_time();
        if (now - due > worst)
            worst = now - due;
        if (now > due)
            due = now;
    }
    printf("worst delay: %lu ns\n", worst);
}

void guest_main(void)
{
    const char *what = (const char *)start_info->cmd_line;
    for (u64 i = 0; i < ARRAY_SIZE(kinds); i++)
        if (starts_with(what, kinds[i].name)) {
            kinds[i].prepare();
            kinds[i].once();
            printf("going on\n");
            for (;;)
                kinds[i].once();
        }
    measure();
}
