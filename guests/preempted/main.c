/* Long hypercalls, which Xen interrupts and has the guest make again: alone and in a batch, nothing shows of it. */
#include "grant.h"

const char guest_name[] = "preempted";

#define FRAMES 1500
#define FIRST_PFN 5000 /* far above what is mapped at the start */
#define GATES 3000
#define COPIES 1200

static u64 list[FRAMES];
static struct trap_info gates[GATES + 1];
static struct grant_copy copies[COPIES];

static struct xen_memory_reservation reservation(void)
{
    return (struct xen_memory_reservation){list, FRAMES, 0, 0, DOMID_SELF};
}

static s64 current(void)
{
    u16 self = DOMID_SELF;
    return xen_memory_op(XENMEM_current_reservation, &self);
}

static void list_frames(void)
{
    for (u64 i = 0; i < FRAMES; i++)
        list[i] = p2m[FIRST_PFN + i];
}

static void list_places(void)
{
    for (u64 i = 0; i < FRAMES; i++)
        list[i] = FIRST_PFN + i;
}

static u64 wrong_places(void)
{
    u64 wrong = 0;
    for (u64 i = 0; i < FRAMES; i++) {
        p2m[FIRST_PFN + i] = list[i];
        wrong += m2p[list[i]] != FIRST_PFN + i;
    }
    return wrong;
}

static void memory(void)
{
    struct xen_memory_reservation r = reservation();
    s64 before = current();
    list_frames();
    printf("decrease: %ld", xen_memory_op(XENMEM_decrease_reservation, &r));
    printf(", reservation changed by %ld\n", current() - before);
    list_places();
    printf("populate: %ld", xen_memory_op(XENMEM_populate_physmap, &r));
    printf(", reservation changed by %ld, wrong places: %lu\n", current() - before, wrong_places());
}

static void exchange(void)
{
    static u64 out[FRAMES];
    struct {
        struct xen_memory_reservation in, out;
        u64 nr_exchanged;
    } e = {reservation(), reservation(), 0};
    s64 before = current();
    list_frames();
    for (u64 i = 0; i < FRAMES; i++)
        out[i] = FIRST_PFN + i;
    e.out.extent_start = out;
    printf("exchange: %s", error_name(xen_memory_op(XENMEM_exchange, &e)));
    memcpy(list, out, sizeof(list));
    printf(", exchanged %lu, reservation changed by %ld, wrong places: %lu\n", e.nr_exchanged, current() - before,
           wrong_places());
}

static void fill_gates(void)
{
    for (u64 i = 0; i < GATES; i++)
        gates[i] = (struct trap_info){0x30 + i % 4, 3, FLAT_KERNEL_CS, TRAP_STUB(0x34 + (i / 1000) * 4 + i % 4)};
}

static void traps(void)
{
    fill_gates();
    expect_result("a long trap table", xen_set_trap_table(gates), 0);
    TRY("int $0x31", :);
    show_fault("the last entry counts");
}

static void fill_copies(char *from, char *to)
{
    for (u64 i = 0; i < COPIES; i++)
        copies[i] = (struct grant_copy){{mfn_of(from), DOMID_SELF, (u16)i}, {mfn_of(to), DOMID_SELF, (u16)(2 * i)}, 1, 0, 99};
}

static void show_copies(const char *from, const char *to)
{
    u64 done = 0, right = 0;
    for (u64 i = 0; i < COPIES; i++) {
        done += copies[i].status == 0;
        right += to[2 * i] == from[i] && !to[2 * i + 1];
    }
    printf("copies done: %lu, right: %lu\n", done, right);
}

static void grants(char *from, char *to)
{
    fill_copies(from, to);
    printf("a long list of copies: %s, ", error_name(H3(__HYPERVISOR_grant_table_op, GNTTABOP_copy, copies, COPIES)));
    show_copies(from, to);
}

static struct multicall_entry entry(u64 op, u64 a, const void *b, u64 c)
{
    return (struct multicall_entry){op, 0x5a5a5a5a5a5a5a5a, {a, (u64)b, c, 0, 0, 0}};
}

static void batch(char *from, char *to)
{
    static u64 places[FRAMES];
    struct xen_memory_reservation give = reservation(), take = reservation();
    s64 before = current();
    traps_init();
    fill_gates();
    fill_copies(from, to);
    list_frames();
    for (u64 i = 0; i < FRAMES; i++)
        places[i] = FIRST_PFN + i;
    take.extent_start = places;
    struct multicall_entry calls[] = {
        entry(__HYPERVISOR_xen_version, XENVER_version, 0, 0),
        entry(__HYPERVISOR_memory_op, XENMEM_decrease_reservation, &give, 0),
        entry(__HYPERVISOR_set_trap_table, (u64)gates, 0, 0),
        entry(__HYPERVISOR_memory_op, XENMEM_populate_physmap, &take, 0),
        entry(__HYPERVISOR_grant_table_op, GNTTABOP_copy, copies, COPIES),
        entry(__HYPERVISOR_xen_version, 99, 0, 0),
    };
    expect_result("a batch of long calls", xen_multicall(calls, ARRAY_SIZE(calls)), 0);
    check(calls[0].result == (4 << 16 | 17));
    printf("decrease %ld, trap table %ld, populate %ld, copies %ld, nothing: %s\n", calls[1].result, calls[2].result,
           calls[3].result, calls[4].result, error_name((s64)calls[5].result));
    memcpy(list, places, sizeof(list));
    printf("reservation changed by %ld, wrong places: %lu\n", current() - before, wrong_places());
    show_copies(from, to);
    TRY("int $0x31", :);
    show_fault("the last entry counts");
}

void guest_main(void)
{
    char *from = page_alloc(), *to = page_alloc();
    for (int i = 0; i < 4096; i++)
        from[i] = (char)(i * 7 + 1);
    memory();
    exchange();
    traps();
    grants(from, to);
    memset(to, 0, 4096);
    batch(from, to);
}
