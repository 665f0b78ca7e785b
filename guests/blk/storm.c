/*
 * Several vcpus on one ring: the first makes requests that are right; the others change them, what describes their
 * segments, the ring's index, the grants, and the memory behind those, while the backend looks at all of it.
 *
 * Nothing but ZERO and MARK is ever in the memory that is granted, or on the disk: whatever else is found in the one or
 * on the other in the end came from elsewhere. The index only ever grows, and never too far, unless "flicker" is asked
 * for.
 */
#include "blk.h"

#define ROUNDS 2000
#define ZERO 0
#define MARK 0x5a
#define OTHER 0x33 /* in memory behind that, which is never granted */
#define BEHIND 40
#define REFS (DATA_PAGES + 1) /* the last one is the page of descriptions */
#define NOT_GRANTED (REF + REFS + 1)
#define MOST_OTHERS 3 /* vcpus */
#define MOST (ENTRIES - 6) /* requests at a time: several vcpus make them, and look before */
#define DESCRIBED 64 /* segments at most */
#define TURNS 500
#define MACHINE_FRAMES 16384  /* of the test's machine */

static char stacks[MOST_OTHERS][8192] __attribute__((aligned(16)));
static struct vcpu_guest_context context;
static int persistent, flickers;
static volatile u32 stop, started, stopped, ballooned;
static struct blk_segment *described;
static char *granted[REFS], *behind[BEHIND];

/* One for each vcpu. */
static u64 random_from(u64 *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    return *state ^= *state << 17;
}

static int is_own(u64 frame)
{
    u64 pfn = m2p[frame];
    return pfn < start_info->nr_pages && p2m[pfn] == frame;
}

static void put_request(u64 random)
{
    while (ring->req_prod - ring->rsp_prod >= MOST)
        if (backend_state() != 4) {
            return;
        } else {
            notify_backend();
            wait_a_little();
        }
    u8 operation = random & 1;
    union {
        struct blk_request direct;
        struct blk_indirect indirect;
    } *request = (void *)&ring->entries[ring->req_prod % ENTRIES];
    if (random & 2) {
        request->direct = (struct blk_request){operation, DATA_PAGES, 0, random, random % (SECTORS - 64), {}};
        for (u32 i = 0; i < DATA_PAGES; i++)
            request->direct.segments[i] = (struct blk_segment){REF + 1 + i, 0, 7, 0};
    } else {
        u16 count = random & 4 ? DESCRIBED : 1 + random / 8 % DESCRIBED;
        request->indirect = (struct blk_indirect){6, operation, count, random, random % (SECTORS - 512), 0, {REF + REFS}};
        for (u16 i = 0; i < count; i++)
            described[i] = (struct blk_segment){REF + 1 + i % DATA_PAGES, 0, 7, 0};
    }
    asm volatile("lock incl %0" : "+m"(ring->req_prod)::"memory");
}

static void pause(void)
{
    for (int i = 0; i < 4; i++)
        asm volatile("pause" ::: "memory");
}

/* Between a value that is right and one that is not, as fast as can be: whoever looks twice sees both. */
static void toggle_byte(volatile u8 *where, u8 right, u8 wrong)
{
    for (int i = 0; i < TURNS; i++) {
        *where = wrong;
        pause();
        *where = right;
        pause();
    }
}

static void toggle_word(volatile u32 *where, u32 right, u32 wrong)
{
    for (int i = 0; i < TURNS; i++) {
        *where = wrong;
        pause();
        *where = right;
        pause();
    }
}

/* One field of a request, or of what describes its segments; and now and then a request that nobody has made. */
static void rewrite(u64 random)
{
    u64 number = random / 32 % DESCRIBED;
    struct blk_request *request = &ring->entries[random % ENTRIES].request;
    struct blk_segment *segment = random >> 61 ? &described[number] : &request->segments[number % DATA_PAGES];
    switch (random / 4096 % 16) {
    case 0:
        toggle_byte(&request->operation, random >> 50 & 1, (u8)(random >> 52));
        break;
    case 1:
        toggle_byte(&request->nr_segments, DATA_PAGES, (u8)(random >> 52));
        break;
    case 2:
        toggle_word((u32 *)&request->sector, (u32)(random >> 32) % SECTORS, SECTORS - 1);
        break;
    case 3:
        toggle_word(&segment->ref, REF + 1 + number % DATA_PAGES, NOT_GRANTED);
        break;
    case 4:
        toggle_byte(&segment->first, 0, (u8)(random >> 52));
        break;
    default:
        toggle_byte(&segment->last, 7, 255);
    }
    if ((random >> 56) % 8 == 0 && ring->req_prod - ring->rsp_prod < MOST)
        asm volatile("lock incl %0" : "+m"(ring->req_prod)::"memory");
    if (flickers && (random >> 56) == 1)
        toggle_word(&ring->req_prod, ring->req_prod, ring->req_prod + 0x1000);
}

/* Which frame is granted, and whether: the right one, another one of ours, or one of somebody else's. */
static void regrant(u64 random)
{
    u64 frame = (random >> 20) % MACHINE_FRAMES;
    u32 number = random % REFS;
    struct grant_entry_v1 *entry = &grant_entries[REF + 1 + number];
    switch (random >> 32 & 31) { /* seldom, or no request would be carried out at all */
    case 0:
        entry->flags = 0;
        break;
    case 1:
        entry->flags = GTF_permit_access | GTF_readonly;
        break;
    case 2:
        if (!is_own(frame))
            entry->frame = (u32)frame;
        break;
    case 3:
        entry->domid = random >> 16 & 1;
        break;
    default:
        entry->domid = 0;
        entry->frame = (u32)mfn_of(granted[number < DATA_PAGES ? (random >> 12) % DATA_PAGES : number]);
        entry->flags = GTF_permit_access;
    }
}

/*
 * Memory goes back while it is granted, and comes back as another frame, if the domain may have one: what the backend
 * has mapped is the domain's until it unmaps it, and what stays mapped is not unmapped.
 */
static void balloon(u64 number)
{
    char *page = data[number];
    if (!page || (persistent && ballooned == DATA_PAGES / 2))
        return;
    u64 pfn = ((u64)page - VIRT_BASE) >> 12, extent = p2m[pfn];
    struct xen_memory_reservation r = {&extent, 1, 0, 0, DOMID_SELF};
    data[number] = 0;
    check(map_page((u64)page, 0) == 0);
    check(xen_memory_op(XENMEM_decrease_reservation, &r) == 1);
    ballooned++;
    do {
        notify_backend();
        extent = pfn;
    } while (xen_memory_op(XENMEM_populate_physmap, &r) != 1 && !persistent);
    if (extent != pfn) {
        p2m[pfn] = extent;
        check(page_writable(page) == 0);
        memset(page, MARK, PAGE_SIZE);
        data[number] = page;
    }
}

/* What the other vcpus do; the first of them is the only one that changes where memory is. */
static void disturb(void)
{
    u32 self = __atomic_fetch_add(&started, 1, __ATOMIC_SEQ_CST);
    u64 state = 0x1234567 + self, random;
    u32 turn = 0;
    do { /* once at least, though the first vcpu may be at its end before this one has begun */
        rewrite(random = random_from(&state));
        for (int i = 0; i < 4; i++)
            regrant(random_from(&state));
        if (self == 0 && turn % 8 == 0)
            balloon(random % DATA_PAGES);
        else if (self == 0 && data[random % DATA_PAGES])
            memset(data[random % DATA_PAGES], random >> 60 & 3 ? MARK : ZERO, PAGE_SIZE);
        if (turn++ % 8 == 7)
            notify_backend();
    } while (!stop);
    __atomic_fetch_add(&stopped, 1, __ATOMIC_SEQ_CST);
    for (;;)
        xen_sched_op(SCHEDOP_yield, 0);
}

static int has_only(const char *page, char one, char other)
{
    for (u32 at = 0; at < PAGE_SIZE; at++)
        if (page[at] != one && page[at] != other)
            return 0;
    return 1;
}

static void settle(void)
{
    while (ring->rsp_prod != ring->req_prod && backend_state() == 4) {
        notify_backend();
        wait_a_little();
    }
}

void storm(void)
{
    u64 state = 0x2468ace;
    u32 others = 0;
    persistent = asked_for("persistent");
    flickers = asked_for("flicker");
    described = page_alloc();
    grant_backend(REF + REFS, granted[DATA_PAGES] = (char *)described);
    for (u32 i = 0; i < DATA_PAGES; i++)
        memset(granted[i] = data[i], MARK, PAGE_SIZE);
    for (u32 i = 0; i < BEHIND; i++)
        memset(behind[i] = page_alloc(), OTHER, PAGE_SIZE);
    /* Segments of zeros are not to reach the console's page, or xenstore's. */
    grant_entries[0].flags = grant_entries[1].flags = 0;
    for (; others < MOST_OTHERS && xen_vcpu_op(VCPUOP_is_up, others + 1, 0) == 0; others++) {
        vcpu_context(&context, disturb, stacks[others], sizeof(stacks[0]));
        check(xen_vcpu_op(VCPUOP_initialise, others + 1, &context) == 0);
        check(xen_vcpu_op(VCPUOP_up, others + 1, 0) == 0);
    }
    check(others > 0);
    for (u32 i = 0; i < ROUNDS && (i % 64 || backend_state() == 4); i++) {
        put_request(random_from(&state));
        if (i % 16 == 0)
            xen_sched_op(SCHEDOP_yield, 0); /* where vcpus take turns, the others have one */
        notify_backend();
    }
    settle();
    stop = 1;
    while (stopped != others)
        wait_a_little();
    settle();
    check(ballooned > 0);
    for (u32 i = 0; i < DATA_PAGES; i++)
        check(!data[i] || has_only(data[i], ZERO, MARK));
    for (u32 i = 0; i < BEHIND; i++)
        check(has_only(behind[i], OTHER, OTHER));
}
