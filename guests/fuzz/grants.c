/* Grant tables: entries for this domain itself and for its peer, and what can be done with them. */
#include "fuzz.h"
#include "grant.h"

#define WINDOW (SCRATCH + 0x100000UL) /* where grants are mapped */
#define WINDOW_PAGES 64
#define FIRST_REF 8
#define REFS 120 /* the guest's own are 8 to 127 */
#define TABLE_FRAMES 4
#define HANDLES 256

struct setup {
    u16 dom;
    u32 nr_frames;
    signed short status;
    u64 *list;
};
struct transfer {
    u64 mfn;
    u16 domid;
    u32 ref;
    signed short status;
};
struct query {
    u16 dom;
    u32 nr_frames, max;
    signed short status;
};
struct status_frames {
    u32 nr_frames;
    u16 dom;
    signed short status;
    u64 *list;
};
struct swap {
    u32 a, b;
    signed short status;
};
struct flush {
    u64 address;
    u16 offset, length;
    u32 op;
};

static struct {
    u32 handle;
    u64 va;
} mapped[HANDLES];
static u32 nr_mapped;
static char table[TABLE_FRAMES * PAGE_SIZE] __attribute__((aligned(4096)));
static u32 version = 1;
static u8 have_table;
static u64 window_entries; /* machine address of the L1 entry of the first page there */

static u8 granted[REFS]; /* what this kernel last wrote there gives to itself */
enum { NOT_OURS, READ_ONLY, WRITABLE };

static u32 some_ref(void)
{
    return chance(95) ? FIRST_REF + (u32)below(REFS) : (u32)odd_value();
}

/* Of version 1: reading or writing is marked. In an entry that accepts a transfer the bits say how far that came. */
static int is_mapped(u64 entry)
{
    return entry & 0x18 && (entry & 3) != GTF_accept_transfer;
}

/* A reference that this kernel gave to itself, if a few tries find one. */
static u32 own_ref(void)
{
    u32 at = 0;
    for (int tries = 0; tries < 12; tries++) {
        at = (u32)below(REFS);
        if (granted[at] != NOT_OURS)
            break;
    }
    return FIRST_REF + at;
}

static u16 partner(void)
{
    u64 kind = below(20);
    return kind < 9 ? self_domid : kind < 19 ? peer_domid : some_domid();
}

/* The guest's own writes into its table: no hypercall. */
static void write_entry(struct call *c)
{
    u32 ref = FIRST_REF + (u32)below(REFS);
    u16 flags = chance(85) ? GTF_permit_access : (u16)below(4);
    u64 frame = chance(92) ? toy_mfn(any_toy(FIRST_DATA_TOY, FIRST_SPARE_TOY, -1)) : odd_mfn();
    u16 domid = partner();
    (void)c;
    if (!have_table)
        return;
    if (chance(25))
        flags |= GTF_readonly;
    if (chance(3))
        flags = (u16)odd_value();
    u64 *entry = (u64 *)table + ref;
    if (version == 1 && is_mapped(*entry) && chance(95))
        return; /* a proper guest leaves it */
    granted[ref - FIRST_REF] = domid != self_domid || (flags & 0x103) != GTF_permit_access ? NOT_OURS
                               : flags & GTF_readonly                                      ? READ_ONLY
                                                                                           : WRITABLE;
    if (version == 1) {
        *entry = flags | (u64)domid << 16 | frame << 32;
        return;
    }
    entry = (u64 *)table + 2 * ref;
    entry[1] = frame;
    if (chance(20))
        flags |= GTF_sub_page, granted[ref - FIRST_REF] = NOT_OURS;
    u64 rest = flags & GTF_sub_page ? below(4096) | below(4096) << 16 : 0;
    if ((flags & 3) == GTF_transitive)
        rest = partner(), entry[1] = FIRST_REF + below(REFS);
    entry[0] = flags | (u64)domid << 16 | rest << 32;
}

static void now_mapped(struct call *c, s64 result)
{
    struct grant_map *m = (struct grant_map *)c->cookie[0];
    (void)result;
    u32 at = nr_mapped < HANDLES ? nr_mapped++ : (u32)below(HANDLES);
    mapped[at].handle = m->handle;
    mapped[at].va = m->host_addr;
}

/* A page of the window that nothing is mapped at, if a few tries find one. */
static u64 free_page(void)
{
    u64 va = 0;
    for (int tries = 0; tries < 6; tries++) {
        u32 at = 0;
        va = WINDOW + below(WINDOW_PAGES) * PAGE_SIZE;
        while (at < nr_mapped && mapped[at].va != va)
            at++;
        if (at == nr_mapped)
            break;
    }
    return va;
}

static void map_grant(struct call *c)
{
    struct grant_map *m = arena(sizeof(*m));
    m->host_addr = free_page();
    m->flags = GNTMAP_host_map | (chance(50) ? GNTMAP_readonly : 0);
    m->ref = some_ref();
    m->dom = partner();
    if (chance(70)) {
        m->ref = own_ref(), m->dom = self_domid;
        if (granted[m->ref - FIRST_REF] == READ_ONLY && chance(90))
            m->flags |= GNTMAP_readonly;
    }
    if (chance(10)) {
        m->host_addr = window_entries + ((m->host_addr - WINDOW) >> 12) * 8;
        m->flags |= GNTMAP_contains_pte;
    }
    if (chance(5))
        m->flags ^= 1u << below(32);
    spoil(m, sizeof(*m));
    if (m->flags & GNTMAP_contains_pte)
        m->host_addr = spare(m->host_addr);
    else if (m->host_addr >= VIRT_BASE && m->host_addr < (u64)toys[NR_TOYS])
        m->host_addr = WINDOW + m->host_addr % PAGE_SIZE;
    c->status = &m->status, c->cookie[0] = (u64)m, c->done = now_mapped;
    fill(c, __HYPERVISOR_grant_table_op, GNTTABOP_map_grant_ref, GNTTABOP_map_grant_ref, (u64)m, 1, 0);
}

static void now_unmapped(struct call *c, s64 result)
{
    (void)result;
    if (c->cookie[0] < nr_mapped)
        mapped[c->cookie[0]] = mapped[--nr_mapped];
}

static void unmap_grant(struct call *c)
{
    struct grant_unmap *u = arena(sizeof(*u));
    u32 at = nr_mapped ? (u32)below(nr_mapped) : 0;
    if (!nr_mapped && chance(90))
        return;
    u32 op = chance(80) ? GNTTABOP_unmap_grant_ref : GNTTABOP_unmap_and_replace;
    u->host_addr = mapped[at].va;
    u->dev_bus_addr = op == GNTTABOP_unmap_grant_ref ? 0 : SCRATCH + below(SCRATCH_PAGES) * PAGE_SIZE;
    u->handle = mapped[at].handle;
    if (chance(10))
        u->handle = (u32)odd_value();
    else if (chance(10))
        u->host_addr = WINDOW + below(WINDOW_PAGES) * PAGE_SIZE;
    else
        c->cookie[0] = at, c->done = now_unmapped;
    c->status = &u->status;
    fill(c, __HYPERVISOR_grant_table_op, op, op, (u64)u, 1, 0);
}

static void set_up(struct call *c)
{
    struct setup *s = arena(sizeof(*s));
    s->dom = some_domid();
    s->nr_frames = 1 + (u32)below(TABLE_FRAMES);
    s->list = arena(8 * 64);
    spoil(s, sizeof(*s));
    c->status = &s->status;
    fill(c, __HYPERVISOR_grant_table_op, GNTTABOP_setup_table, GNTTABOP_setup_table, (u64)s, chance(95) ? 1 : odd_value(), 0);
}

static void copy_frame(struct call *c)
{
    u32 count = 1 + (chance(20) ? (u32)below(5) : 0);
    struct grant_copy *copies = arena(count * sizeof(*copies));
    for (u32 i = 0; i < count; i++) {
        struct grant_copy *p = &copies[i];
        p->flags = (u16)below(4);
        p->source = (struct grant_copy_end){some_ref(), partner(), (u16)below(2048)};
        p->dest = (struct grant_copy_end){some_ref(), partner(), (u16)below(2048)};
        if (!(p->flags & 1))
            p->source.u = toy_mfn(any_toy(0, FIRST_SPARE_TOY, -1)), p->source.domid = DOMID_SELF;
        if (!(p->flags & 2))
            p->dest.u = toy_mfn(any_toy(FIRST_DATA_TOY, FIRST_SPARE_TOY, -1)), p->dest.domid = DOMID_SELF;
        p->len = (u16)below(2048);
    }
    spoil(copies, sizeof(*copies));
    if (!(copies[0].flags & 2))
        copies[0].dest.u = spare(copies[0].dest.u << 12) >> 12;
    c->status = &copies[0].status;
    fill(c, __HYPERVISOR_grant_table_op, GNTTABOP_copy, GNTTABOP_copy, (u64)copies, count, 0);
}

static void map_table(void)
{
    u64 list[64];
    struct setup s = {DOMID_SELF, TABLE_FRAMES, 99, list};
    if (H3(__HYPERVISOR_grant_table_op, GNTTABOP_setup_table, &s, 1) || s.status)
        return;
    have_table = 1;
    for (u32 i = 0; i < TABLE_FRAMES; i++)
        have_table &= map_page((u64)table + i * PAGE_SIZE, list[i] << 12 | PTE_P | PTE_RW) == 0;
}

static void changed_version(struct call *c, s64 result)
{
    (void)result;
    version = *(u32 *)c->cookie[0];
}

static void set_version(struct call *c)
{
    u32 *wanted = arena(4);
    if (chance(80)) /* it empties the table: not too often */
        *wanted = version;
    else
        *wanted = chance(80) ? 1 + (u32)below(2) : (u32)odd_value();
    c->cookie[0] = (u64)wanted, c->done = changed_version;
    fill(c, __HYPERVISOR_grant_table_op, GNTTABOP_set_version, GNTTABOP_set_version, (u64)wanted, 1, 0);
}

static void moved_away(struct call *c, s64 result)
{
    const struct transfer *t = (const struct transfer *)c->cookie[1];
    (void)result;
    if (t->domid == self_domid) /* what one gives to oneself comes back as it was */
        role_of[c->cookie[0]] = LOOSE;
}

/* An entry that takes what this domain gives to itself. */
static u32 accepting(u32 toy)
{
    u64 pfn = ((u64)toys[toy] - VIRT_BASE) >> 12;
    u32 ref = FIRST_REF + (u32)below(REFS);
    u64 *entry = (u64 *)table + ref * version;
    if (!have_table || is_mapped(*entry))
        return ref;
    granted[ref - FIRST_REF] = NOT_OURS;
    entry[0] = GTF_accept_transfer | (u64)self_domid << 16 | (version == 1 ? pfn << 32 : 0);
    if (version == 2)
        entry[1] = pfn;
    return ref;
}

static void transfer_frame(struct call *c)
{
    u32 toy = any_toy(FIRST_SPARE_TOY, NR_TOYS, LOOSE);
    struct transfer *t = arena(sizeof(*t));
    if (role_of[toy] != LOOSE)
        return;
    map_page((u64)toys[toy], 0);
    *t = (struct transfer){toy_mfn(toy), partner(), some_ref(), 0};
    if (chance(60))
        t->domid = self_domid, t->ref = accepting(toy);
    role_of[toy] = GONE; /* also when nobody takes it */
    c->status = &t->status, c->cookie[0] = toy, c->cookie[1] = (u64)t, c->done = moved_away;
    fill(c, __HYPERVISOR_grant_table_op, GNTTABOP_transfer, GNTTABOP_transfer, (u64)t, 1, 0);
}

static void ask(struct call *c)
{
    u32 op = 3 + (u32)below(10);
    u64 *words = arena(64);
    void *arg = words;
    if (op == GNTTABOP_query_size) {
        struct query *q = arg;
        q->dom = some_domid(), c->status = &q->status;
    } else if (op == GNTTABOP_get_status_frames) {
        struct status_frames *s = arg;
        *s = (struct status_frames){(u32)below(2), some_domid(), 0, arena(64)};
        c->status = &s->status;
    } else if (op == GNTTABOP_get_version) {
        *(u16 *)arg = some_domid();
    } else if (op == GNTTABOP_swap_grant_ref) {
        struct swap *s = arg;
        *s = (struct swap){some_ref(), some_ref(), 0};
        c->status = &s->status;
    } else if (op == GNTTABOP_cache_flush) {
        struct flush *f = arg;
        *f = (struct flush){toy_mfn((u32)below(NR_TOYS)) << 12, (u16)below(2048), (u16)below(2048), (u32)below(3)};
    } else if (op != 3) {
        return;
    }
    spoil(arg, 24);
    fill(c, __HYPERVISOR_grant_table_op, op, op, (u64)arg, 1, 0);
    if (chance(3))
        c->args[2] = odd_value();
}

void grants_init(void)
{
    map_table();
    for (u64 va = WINDOW; va < WINDOW + WINDOW_PAGES * PAGE_SIZE; va += 512 * PAGE_SIZE)
        if (!entry_of(va, 1))
            map_in(kernel_l4, va, 0);
    window_entries = machine_of(pte_of(WINDOW));
}

const struct family grant_families[] = {
    {write_entry, 40, 1}, {map_grant, 40, 0}, {unmap_grant, 30, 1}, {set_up, 8, 0},
    {copy_frame, 20, 0}, {set_version, 3, 1}, {transfer_frame, 4, 1}, {ask, 20, 0}, {0},
};
