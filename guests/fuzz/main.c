/* Random hypercalls: seed=N calls=N domid=N peer=N fifo=0|1 on the command line; at the end, a table of them. */
#include "fuzz.h"

const char guest_name[] = "fuzz";

#define SLOTS 1024
#define BATCH 24
#define ARENA_SIZE (64 * PAGE_SIZE)
#define MOST_GIVEN_UP 1000

static struct {
    u32 op, sub;
    u64 calls, good;
} slots[SLOTS];
static u64 state, total, wanted = 20000, next_call[8];
static char arena_memory[ARENA_SIZE + PAGE_SIZE] __attribute__((aligned(4096)));
static u64 arena_used;
static u8 in_batch;
static struct multicall_entry batch[BATCH];
static struct call calls[BATCH];
static u32 batched;
u16 self_domid = DOMID_SELF, peer_domid = 0;
int with_fifo;

u64 rnd(void)
{
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return state * 0x2545f4914f6cdd1dUL;
}

u64 odd_value(void)
{
    static const u64 known[] = {
        0, 1, 2, 3, 7, 8, 63, 64, 511, 512, 4095, 4096, 0x7ff0, 0x7ff1, 0x7ff2, 0x7ff4, 0x7fff, 0x8000, 0xffff,
        0x7fffffff, 0x80000000, 0xffffffff, 0x100000000, 0xfffffffff, 0x8000000000000000, ~0UL, ~7UL,
        0x7fffffffffff, 0x800000000000, 0xffff7fffffffffff, 0xffff800000000000, 0xffff87ffffffffff,
        0xffff880000000000, 0xfffffffffffff000, 0x123456789000,
    };
    switch (below(5)) {
    case 0:
        return known[below(ARRAY_SIZE(known))];
    case 1:
        return known[below(ARRAY_SIZE(known))] + below(17) - 8;
    case 2:
        return below(64);
    case 3:
        return (u64)toys[below(NR_TOYS)] + (chance(50) ? 0 : below(PAGE_SIZE));
    }
    return rnd() >> below(64);
}

u64 odd_address(void)
{
    u64 va = odd_value();
    return va >= (u64)toys[FIRST_DATA_TOY] && va < (u64)toys[NR_TOYS] ? va - FIRST_DATA_TOY * PAGE_SIZE : va;
}

void *arena(u64 size)
{
    size = (size + 15) & ~15UL;
    if (arena_used + size > ARENA_SIZE - PAGE_SIZE)
        arena_used = 0;
    if (size <= PAGE_SIZE && !in_batch && chance(3)) /* the arena's last page is followed by one that is not there */
        return memset(arena_memory + ARENA_SIZE - size, 0, size);
    void *place = arena_memory + arena_used;
    arena_used += size;
    return memset(place, 0, size);
}

void spoil(void *structure, u64 size)
{
    if (!size || !chance(20))
        return;
    u64 width = 1UL << below(4), value = chance(70) ? odd_value() : 1UL << below(64);
    if (width > size)
        width = size;
    u64 at = below(size) & ~(width - 1), *word = (u64 *)((char *)structure + (at & ~7UL));
    if ((at & ~7UL) + 8 <= size && *word >= VIRT_BASE) {
        /* An address: somewhere else as a whole, lest it point at what this kernel needs. */
        *word = chance(50) ? odd_value() : *word + below(64) - 32;
        return;
    }
    if (chance(30)) {
        ((char *)structure)[at] ^= (char)(1u << below(8));
        return;
    }
    memcpy((char *)structure + at, &value, at + width > size ? size - at : width);
}

u16 some_domid(void)
{
    static const u16 known[] = {DOMID_IO, DOMID_XEN, DOMID_INVALID, 0x7fff, 0xffff, 0, 1, 77};
    u64 kind = below(100);
    return kind < 80 ? DOMID_SELF : kind < 88 ? self_domid : kind < 94 ? peer_domid : known[below(ARRAY_SIZE(known))];
}

void count_call(u64 op, u32 sub, int good)
{
    u64 number = op > 63 ? 64 : op, slot = (number * 37 + sub * 13) % SLOTS;
    while (slots[slot].calls && (slots[slot].op != number || slots[slot].sub != sub))
        slot = (slot + 1) % SLOTS;
    slots[slot].op = (u32)number;
    slots[slot].sub = sub;
    slots[slot].calls++;
    slots[slot].good += good;
    total++;
}

static void finish_call(struct call *c, s64 result)
{
    int good = result >= c->least && (!c->status || *c->status == 0);
    if (good && c->done)
        c->done(c, result);
    count_call(c->op, c->sub, good);
}

static void make_batch(void)
{
    u32 count = batched;
    batched = 0;
    for (u32 i = 0; i < count; i++) {
        batch[i] = (struct multicall_entry){.op = calls[i].op, .result = -ENOEXEC};
        memcpy(batch[i].args, calls[i].args, sizeof(batch[i].args));
    }
    s64 result = xen_multicall(batch, count);
    count_call(__HYPERVISOR_multicall, 0, result == 0);
    for (u32 i = 0; i < count; i++)
        finish_call(&calls[i], (s64)batch[i].result);
}

/* A batch within a batch, one that cannot be read or written, and one of no calls. */
static void odd_batch(struct call *c)
{
    struct multicall_entry *inner = arena(2 * sizeof(*inner));
    inner[0].op = chance(50) ? __HYPERVISOR_multicall : __HYPERVISOR_sched_op;
    inner[1].op = __HYPERVISOR_sched_op; /* to yield */
    fill(c, __HYPERVISOR_multicall, 0, chance(80) ? (u64)inner : 0x7ffff000, below(3), 0, 0);
}

/* Anything at all, but what would only end the domain, or its console. */
static void wild(struct call *c)
{
    u64 *words = arena(256);
    for (u32 i = 0; i < 32; i++)
        words[i] = odd_value();
    c->op = below(58);
    for (u32 i = 0; i < 5; i++)
        c->args[i] = chance(50) ? odd_value() : chance(50) ? (u64)words : below(32);
    c->sub = SUB_PT_WRITE + 1;
    int sched = c->op == __HYPERVISOR_sched_op || c->op == __HYPERVISOR_sched_op_compat;
    int events = c->op == __HYPERVISOR_event_channel_op || c->op == __HYPERVISOR_event_channel_op_compat;
    int deadly = c->op == __HYPERVISOR_iret || c->op == __HYPERVISOR_set_trap_table || sched || events ||
                 c->op == __HYPERVISOR_set_callbacks || c->op == __HYPERVISOR_callback_op ||
                 c->op == __HYPERVISOR_vcpu_op || c->op == __HYPERVISOR_multicall ||
                 c->op == __HYPERVISOR_set_segment_base || c->op == __HYPERVISOR_nmi_op;
    if (c->op == __HYPERVISOR_update_va_mapping || c->op == __HYPERVISOR_update_va_mapping_otherdomain)
        c->args[0] = odd_address(); /* not the arena, which is needed */
    if (deadly && below(20000))
        c->op = 24 + below(32), c->args[0] = 1000 + below(1000);
}

static const struct family own_families[] = {{wild, 30, 0}, {odd_batch, 4, 0}, {0}};

static const struct family *const sources[] = {
    own_families, memory_families, grant_families, event_families, other_families,
};

static const struct family *choose(void)
{
    static const struct family *table[1024];
    static u32 entries;
    if (!entries)
        for (u32 s = 0; s < ARRAY_SIZE(sources); s++)
            for (const struct family *f = sources[s]; f->generate; f++)
                for (u32 i = 0; i < f->weight && entries < ARRAY_SIZE(table); i++)
                    table[entries++] = f;
    return table[below(entries)];
}

static void one_call(void)
{
    const struct family *family = choose();
    struct call *c = &calls[batched];
    memset(c, 0, sizeof(*c));
    in_batch = batched || (!family->alone && chance(10));
    family->generate(c);
    if (!c->op && !c->sub && !c->args[0])
        return; /* the generator had nothing to do, or did it itself */
    if (in_batch && !family->alone) {
        if (++batched == BATCH || chance(10))
            make_batch();
        return;
    }
    /* This call goes alone: what is kept for a batch stays kept, before it. */
    struct call alone = *c;
    if (batched)
        make_batch();
    finish_call(&alone, hypercall(alone.op, alone.args[0], alone.args[1], alone.args[2], alone.args[3], alone.args[4]));
}

static u64 option(const char *name, u64 otherwise)
{
    for (const char *p = start_info->cmd_line; *p; p++)
        if (starts_with(p, name)) {
            u64 value = 0;
            for (p += strlen(name); *p >= '0' && *p <= '9'; p++)
                value = value * 10 + (u64)(*p - '0');
            return value;
        }
    return otherwise;
}

static void show(void)
{
    for (u32 i = 0; i < SLOTS; i++)
        if (slots[i].calls)
            printf("SLOT %u %u %lu %lu\n", slots[i].op, slots[i].sub, slots[i].calls, slots[i].good);
    printf("CALLS %lu\n", total);
}

/* A trap where none should be: some call has spoiled what this kernel relies on. The call is given up. */
static void give_up(struct regs *r)
{
    static u32 times;
    if ((char *)r < boot_stack || (char *)r >= boot_stack_top || times++ == MOST_GIVEN_UP)
        return;
    load_context(next_call);
}

void guest_main(void)
{
    u64 seed = option("seed=", 1);
    wanted = option("calls=", wanted);
    self_domid = (u16)option("domid=", DOMID_SELF);
    peer_domid = (u16)option("peer=", 0);
    with_fifo = option("fifo=", 0) != 0;
    state = seed * 0x9e3779b97f4a7c15UL + 1;
    for (int i = 0; i < 8; i++)
        rnd();
    printf("FUZZ seed=%lu calls=%lu\n", seed, wanted);
    map_page((u64)arena_memory + ARENA_SIZE, 0);
    memory_init();
    grants_init();
    events_init();
    last_resort = give_up;
    save_context(next_call);
    while (total < wanted)
        one_call();
    last_resort = 0;
    show();
}
