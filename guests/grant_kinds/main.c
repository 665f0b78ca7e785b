/* What grants can do: kinds of mappings and their entries, counts at their limits, transfers, caches, both versions,
 * and frames that Xen shares. The domain grants to itself. */
#include "grant.h"

const char guest_name[] = "grant_kinds";

#define GNTMAP_avail(n) ((u32)(n) << 16)
#define GTF_transfer_committed 4
#define GTF_transfer_completed 8

static struct grant_entry_v1 *table;
static u64 *page, *window, *second;

static u64 at(const void *va)
{
    return (u64)va;
}

static u64 bits(const void *va)
{
    return *pte_of(at(va)) & ~PTE_ADDR;
}

static void set_up(void)
{
    u64 frame;
    check(grant_frames(1, &frame) == 0);
    table = page_alloc();
    check(map_page(at(table), frame << 12 | PTE_P | PTE_RW) == 0);
    page = page_alloc(), window = page_alloc(), second = page_alloc();
    check(map_page(at(window), 0) == 0 && map_page(at(second), 0) == 0);
}

static s64 replace(u64 address, u64 new_address, u32 handle)
{
    struct {
        u64 host_addr, new_addr;
        u32 handle;
        short status;
    } r = {address, new_address, handle, 99};
    check(grant_op(GNTTABOP_unmap_and_replace, &r, 1) == 0);
    return r.status;
}

static void entries(void)
{
    static const u32 flags[] = {
        GNTMAP_host_map,
        GNTMAP_host_map | GNTMAP_application_map,
        GNTMAP_host_map | GNTMAP_application_map | GNTMAP_readonly,
        GNTMAP_host_map | GNTMAP_avail(1),
        GNTMAP_host_map | GNTMAP_avail(6),
        GNTMAP_host_map | GNTMAP_avail(0xffff) | GNTMAP_readonly,
        GNTMAP_host_map | 0xffe0,
    };
    grant_v1(&table[10], GTF_permit_access, mfn_of(page));
    for (u64 i = 0; i < ARRAY_SIZE(flags); i++) {
        struct grant_map m = grant_map(at(window), flags[i], 10);
        printf("flags %x: status %d, entry %lx", flags[i], m.status, bits(window));
        printf(", unmapped: %ld", grant_unmap(at(window), 0, m.handle));
        printf(", entry %lx\n", *pte_of(at(window)));
    }
    for (u32 cache = 0x20; cache <= 0x80; cache <<= 1) {
        grant_v1(&table[11], (u16)(GTF_permit_access | cache), mfn_of(page));
        struct grant_map m = grant_map(at(window), GNTMAP_host_map, 11);
        printf("granted with %x: status %d, entry %lx\n", cache, m.status, bits(window));
        check(grant_unmap(at(window), 0, m.handle) == 0);
    }
    grant_v1(&table[11], GTF_permit_access | GTF_sub_page, mfn_of(page));
    printf("granted with the sub-page flag: status %d\n", grant_map(at(window), GNTMAP_host_map, 11).status);
    grant_v1(&table[11], GTF_permit_access | 0xfe00, mfn_of(page));
    struct grant_map m = grant_map(at(window), GNTMAP_host_map, 11);
    printf("granted with unknown flags: status %d, flags %x", m.status, table[11].flags);
    printf(", unmapped: %ld", grant_unmap(at(window), 0, m.handle));
    printf(", flags %x\n", table[11].flags);
}

static void by_hand(void)
{
    struct grant_map m = grant_map(at(window), GNTMAP_host_map, 10);
    u64 entry = *pte_of(at(window));
    printf("entry read-only by hand: %s", error_name(map_page(at(window), entry & ~PTE_RW)));
    printf(", with another available bit: %s", error_name(map_page(at(window), entry ^ 0x200)));
    printf(", not accessed: %s\n", error_name(map_page(at(window), entry & ~PTE_A)));
    printf("unmapped: %ld\n", grant_unmap(at(window), 0, m.handle));
    m = grant_map(at(window), GNTMAP_host_map, 10);
    check(map_page(at(second), *pte_of(at(window))) == 0); /* our own frame: as good as the grant's mapping */
    printf("unmapped where we mapped it ourselves: %ld", grant_unmap(at(second), 0, m.handle));
    printf(", entry %lx\n", *pte_of(at(second)));
    printf("and again: %ld\n", grant_unmap(at(window), 0, m.handle));
    check(map_page(at(window), 0) == 0);
    m = grant_map(at(window), GNTMAP_host_map | GNTMAP_readonly, 10);
    check(map_page(at(window), mfn_of(page) << 12 | PTE_P | PTE_RW) == 0);
    printf("unmapped after we made it writable: %ld", grant_unmap(at(window), 0, m.handle));
    check(map_page(at(window), mfn_of(page) << 12 | PTE_P) == 0);
    printf(", and read-only again: %ld", grant_unmap(at(window), 0, m.handle));
    printf(", flags %x\n", table[10].flags);
}

static void replacing(void)
{
    u64 *spare = page_alloc();
    struct grant_map m = grant_map(machine_of(pte_of(at(window))), GNTMAP_host_map | GNTMAP_contains_pte, 10), n;
    printf("replace, mapped by its entry: %ld\n", replace(machine_of(pte_of(at(window))), at(spare), m.handle));
    check(grant_unmap(machine_of(pte_of(at(window))), 0, m.handle) == 0);
    m = grant_map(at(window), GNTMAP_host_map, 10);
    printf("replace by itself: %ld", replace(at(window), at(window), m.handle));
    printf(", entry %lx\n", bits(window));
    printf("unmap: %ld\n", grant_unmap(at(window), 0, m.handle));
    grant_v1(&table[12], GTF_permit_access, mfn_of(page));
    m = grant_map(at(window), GNTMAP_host_map, 12), n = grant_map(at(second), GNTMAP_host_map, 12);
    printf("replace by another mapping of the grant: %ld", replace(at(window), at(second), m.handle));
    printf(", entries %lx and %lx\n", bits(window), *pte_of(at(second)));
    printf("unmap that: %ld", grant_unmap(at(window), 0, n.handle));
    printf(", flags %x\n", table[12].flags);
    m = grant_map(at(window), GNTMAP_host_map, 12);
    printf("replace by nothing at all: %ld\n", replace(at(window), 0, m.handle));
}

/* How often a grant is mapped in a kind before that is refused; then all are unmapped. */
static u32 count_up(u32 flags, u32 ref, struct grant_map *maps, u32 limit)
{
    u32 done = 0;
    while (done < limit && (maps[done] = grant_map(0, flags, ref)).status == 0)
        done++;
    printf("  mapped %u times, then status %d\n", done, done < limit ? maps[done].status : 0);
    return done;
}

static void counts(void)
{
    static struct grant_map maps[600];
    const u32 readonly = GNTMAP_device_map | GNTMAP_readonly, writable = GNTMAP_device_map;
    printf("read-only, for a device:\n");
    u32 done = count_up(readonly, 10, maps, 300);
    printf("writable beside these:\n");
    u32 more = count_up(writable, 10, maps + done, 200);
    printf("flags %x\n", table[10].flags);
    struct grant_map m = grant_map(at(window), GNTMAP_host_map, 10);
    printf("for the processor beside these: status %d\n", m.status);
    if (m.status == 0)
        check(grant_unmap(at(window), 0, m.handle) == 0);
    for (u32 i = 0; i < done + more; i++)
        check(grant_unmap(0, maps[i].dev_bus_addr, maps[i].handle) == 0);
    printf("flags after all were unmapped: %x\n", table[10].flags);
}

static short transfer(u64 mfn, u16 domid, u32 ref)
{
    struct {
        u64 mfn;
        u16 domid;
        u32 ref;
        short status;
    } t = {mfn, domid, ref, 99};
    check(grant_op(GNTTABOP_transfer, &t, 1) == 0);
    return t.status;
}

static u64 in_no_use(u64 word)
{
    u64 *given = page_alloc(), mfn = mfn_of(given);
    given[7] = word;
    check(map_page(at(given), 0) == 0);
    return mfn;
}

static void transfers(void)
{
    u64 mfn = in_no_use(777);
    grant_v1(&table[13], GTF_accept_transfer, 4321);
    printf("to ourselves: %d", transfer(mfn, own_domid(), 13));
    printf(", flags %x, the frame: %d, its place: %lu\n", table[13].flags, table[13].frame == mfn, m2p[mfn]);
    check(map_page(at(window), mfn << 12 | PTE_P | PTE_RW) == 0);
    printf("its contents: %lu\n", window[7]);
    check(map_page(at(window), 0) == 0);
    printf("the same entry again: %d\n", transfer(in_no_use(1), own_domid(), 13));
    grant_v1(&table[14], GTF_accept_transfer | GTF_transfer_committed, 1);
    printf("an entry that is committed: %d\n", transfer(in_no_use(1), own_domid(), 14));
    grant_v1(&table[14], GTF_accept_transfer | GTF_sub_page, 1);
    printf("an entry with another flag: %d\n", transfer(in_no_use(1), own_domid(), 14));
    grant_v1(&table[14], GTF_permit_access, 1);
    printf("an entry that permits access: %d\n", transfer(in_no_use(1), own_domid(), 14));
    grant_v1(&table[14], GTF_accept_transfer, 1);
    table[14].domid = 77;
    printf("an entry for another domain: %d\n", transfer(in_no_use(1), own_domid(), 14));
    printf("no entry: %d\n", transfer(in_no_use(1), own_domid(), 100000));
    printf("to DOMID_SELF: %d\n", transfer(in_no_use(1), DOMID_SELF, 13));
    printf("to domain 0: %d\n", transfer(in_no_use(1), 0, 13));
    printf("the frame of a grant table: %d\n", transfer(*pte_of(at(table)) >> 12 & 0xffffffffff, own_domid(), 13));
    mfn = in_no_use(888);
    grant_v1(&table[15], GTF_permit_access, mfn);
    struct grant_map m = grant_map(0, GNTMAP_device_map | GNTMAP_readonly, 15);
    grant_v1(&table[14], GTF_accept_transfer, 99);
    printf("a frame that a grant holds: %d\n", transfer(mfn, own_domid(), 14));
    check(grant_unmap(0, m.dev_bus_addr, m.handle) == 0);
    printf("after that: %d\n", transfer(mfn, own_domid(), 14));
    printf("memory is as much as before, less what was lost: %ld\n",
           (s64)start_info->nr_pages - H2(__HYPERVISOR_memory_op, 3, &(u16){DOMID_SELF}));
}

static s64 flush(u64 address, u16 offset, u16 length, u32 how)
{
    struct {
        u64 bus_address;
        u16 offset, length;
        u32 op;
    } f = {address, offset, length, how};
    return grant_op(GNTTABOP_cache_flush, &f, 1);
}

static void caches(void)
{
    static const struct {
        u16 offset, length;
        u32 how;
    } tries[] = {{0, 4096, 1},  {0, 4096, 3},     {0, 4096, 2},          {0, 16, 0},          {0, 0, 1},
                 {0, 16, 4},    {0, 0, 4},        {0, 16, 0x80000000},   {0, 16, 0x80000001}, {0, 0, 0x80000000},
                 {4096, 0, 1},  {1, 4096, 1},     {4095, 1, 1},          {0, 4097, 0},        {0xffff, 0xffff, 0}};
    u64 mine = mfn_of(page) << 12;
    for (u64 i = 0; i < ARRAY_SIZE(tries); i++) {
        printf("flush %u+%u, op %x: ", tries[i].offset, tries[i].length, tries[i].how);
        printf("%s\n", error_name(flush(mine, tries[i].offset, tries[i].length, tries[i].how)));
    }
    printf("no frame: %s", error_name(flush(0xffffffUL << 12, 0, 16, 1)));
    printf(", no frame, nothing of it: %s", error_name(flush(0xffffffUL << 12, 0, 0, 1)));
    printf(", the shared info: %s\n", error_name(flush(start_info->shared_info, 0, 16, 1)));
}

static void shared_frames(void)
{
    u64 frame[2];
    check(grant_frames(2, frame) == 0);
    u64 *view = page_alloc();
    check(map_page(at(view), frame[1] << 12 | PTE_P | PTE_RW) == 0);
    struct xen_memory_reservation r = {&frame[1], 1, 0, 0, DOMID_SELF};
    printf("a frame of the grant table given away while mapped: %s",
           error_name(H2(__HYPERVISOR_memory_op, 1, &r)));
    printf(", again: %s\n", error_name(H2(__HYPERVISOR_memory_op, 1, &r)));
    ((struct grant_entry_v1 *)view)[3] = (struct grant_entry_v1){GTF_permit_access, own_domid(), (u32)mfn_of(page)};
    struct grant_map m = grant_map(at(window), GNTMAP_host_map, 512 + 3);
    printf("its grants go on: %d", m.status);
    printf(", unmapped: %ld\n", grant_unmap(at(window), 0, m.handle));
    printf("a second mapping of it: %s", error_name(map_page(at(second), frame[1] << 12 | PTE_P | PTE_RW)));
    check(map_page(at(second), 0) == 0);
    check(map_page(at(view), 0) == 0);
    printf(", after the last: %s\n", error_name(map_page(at(view), frame[1] << 12 | PTE_P | PTE_RW)));
    printf("given away now: %s", error_name(H2(__HYPERVISOR_memory_op, 1, &r)));
    u64 told[2] = {0, 0};
    check(grant_frames(2, told) == 0);
    printf(", still told: %d\n", told[1] == frame[1]);
    m = grant_map(at(window), GNTMAP_host_map, 512 + 3);
    printf("its grants go on: %d", m.status);
    printf(", unmapped: %ld\n", grant_unmap(at(window), 0, m.handle));
}

static void version_2(void)
{
    u32 version = 2;
    union grant_entry_v2 *wide = (union grant_entry_v2 *)table;
    volatile u16 *status = page_alloc();
    u64 frame;
    check(grant_op(GNTTABOP_set_version, &version, 1) == 0);
    struct {
        u32 nr_frames;
        u16 dom;
        short status;
        u64 *list;
    } frames = {1, DOMID_SELF, 99, &frame};
    check(grant_op(GNTTABOP_get_status_frames, &frames, 1) == 0 && frames.status == 0);
    check(map_page(at((void *)status), frame << 12 | PTE_P | PTE_RW) == 0);
    wide[20].full.domid = own_domid(), wide[20].full.frame = mfn_of(page), wide[20].full.flags = GTF_permit_access;
    struct grant_map m = grant_map(at(window), GNTMAP_host_map | GNTMAP_readonly, 20), n;
    printf("version 2, read-only: %d, entry %x, status %x\n", m.status, wide[20].full.flags, status[20]);
    n = grant_map(at(second), GNTMAP_host_map, 20);
    printf("and writable: %d, entry %x, status %x\n", n.status, wide[20].full.flags, status[20]);
    printf("unmapped: %ld", grant_unmap(at(second), 0, n.handle));
    printf(", status %x", status[20]);
    printf(", unmapped: %ld", grant_unmap(at(window), 0, m.handle));
    printf(", status %x\n", status[20]);
    wide[20].full.flags = GTF_permit_access | GTF_readonly;
    printf("writable, granted read-only: %d", grant_map(at(window), GNTMAP_host_map, 20).status);
    printf(", status %x\n", status[20]);
    wide[20].full.flags = GTF_permit_access | GTF_reading | GTF_writing;
    m = grant_map(at(window), GNTMAP_host_map, 20);
    printf("with flags that the entry has not: %d, entry %x, status %x\n", m.status, wide[20].full.flags, status[20]);
    check(grant_unmap(at(window), 0, m.handle) == 0);
    u64 mfn = in_no_use(999);
    wide[21].full.domid = own_domid(), wide[21].full.frame = 0x123456789, wide[21].full.flags = GTF_accept_transfer;
    printf("transfer: %d", transfer(mfn, own_domid(), 21));
    printf(", flags %x, the frame: %d", wide[21].full.flags, wide[21].full.frame == mfn);
    printf(", its place %lx, status %x\n", m2p[mfn], status[21]);
    check(map_page(at((void *)status), 0) == 0);
    version = 1;
    check(grant_op(GNTTABOP_set_version, &version, 1) == 0);
    grant_v1(&table[10], GTF_permit_access, mfn_of(page));
}

void guest_main(void)
{
    set_up();
    entries();
    version_2();
    by_hand();
    replacing();
    counts();
    transfers();
    caches();
    shared_frames();
}
