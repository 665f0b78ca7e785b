/* Page tables, descriptor tables and reservations. */
#include "fuzz.h"

#define XENMEM_CALLS 29

char toys[NR_TOYS][PAGE_SIZE] __attribute__((aligned(4096)));
u8 role_of[NR_TOYS];
static u64 contents[512], last_mfn;

u32 any_toy(u32 from, u32 to, int role)
{
    u32 toy = 0;
    for (int tries = 0; tries < 12; tries++) {
        toy = from + (u32)below(to - from);
        if (role < 0 || role_of[toy] == role)
            break;
    }
    return toy;
}

static u32 table_toy(u32 level, int role)
{
    static const u32 first[] = {0, 0, 48, 72, 84}, end[] = {FIRST_SEGMENT_TOY, 48, 72, 84, FIRST_SEGMENT_TOY};
    return any_toy(first[level], end[level], role);
}

u64 odd_mfn(void)
{
    switch (below(12)) {
    case 0: /* not one of the few thousand frames that are needed */
        return odd_value() | 1UL << (18 + below(46));
    case 1: /* the hypervisor's are the first ones */
        return chance(50) ? below(64) : 0x100000 + below(0x100000);
    case 2: /* one of the kernel's own tables */
        return mfn_of((char *)kernel_l4 + PAGE_SIZE * below(4));
    case 3:
        return start_info->shared_info >> 12;
    }
    return toy_mfn((u32)below(NR_TOYS));
}

int is_needed(u64 mfn)
{
    if (mfn > last_mfn)
        return 0;
    u64 pfn = m2p[mfn], first_toy = ((u64)toys - VIRT_BASE) >> 12;
    return pfn < start_info->nr_pages && p2m[pfn] == mfn && (pfn < first_toy || pfn >= first_toy + NR_TOYS);
}

u64 spare(u64 address)
{
    if (!is_needed(address >> 12))
        return address;
    return toy_mfn(any_toy(0, FIRST_SPARE_TOY, -1)) << 12 | address % PAGE_SIZE;
}

/* ---- contents of tables ---- */

static u64 odd_bits(u64 entry)
{
    if (chance(90))
        return entry;
    return chance(50) ? entry ^ 1UL << below(64) : chance(50) ? odd_value() : odd_mfn() << 12 | below(4096);
}

static u64 l1_entry(void)
{
    static const u64 extra[] = {0, PTE_A, PTE_A | PTE_D, PTE_US, PTE_NX, PTE_G, 1UL << 52, 0xe00, PTE_US | PTE_NX};
    if (chance(15))
        return 0;
    if (chance(70))
        return odd_bits(toy_mfn(any_toy(FIRST_DATA_TOY, FIRST_SPARE_TOY, -1)) << 12 | PTE_P |
                        (chance(60) ? PTE_RW : 0) | extra[below(ARRAY_SIZE(extra))]);
    return odd_bits(toy_mfn((u32)below(FIRST_SPARE_TOY)) << 12 | PTE_P | extra[below(ARRAY_SIZE(extra))]);
}

static u64 upper_entry(u32 level)
{
    if (chance(50))
        return 0;
    if (chance(3)) /* a table of the same level, as a linear map has it */
        return odd_bits(toy_mfn(table_toy(level, chance(50) ? PINNED : READY)) << 12 | PTE_P | (chance(20) ? PTE_RW : 0));
    return odd_bits(toy_mfn(table_toy(level - 1, chance(75) ? PINNED : READY)) << 12 | PTE_TABLE);
}

static u64 entry_for(u32 level)
{
    return level == 1 ? l1_entry() : upper_entry(level);
}

static void fill_table(u32 toy)
{
    u32 level = level_of(toy);
    memset(contents, 0, PAGE_SIZE);
    if (level == 4) /* the kernel goes on under it */
        for (u32 i = 0; i < 512; i++)
            if (i < 256 || i > 271)
                contents[i] = ((const u64 *)kernel_l4)[i];
    for (u32 n = level == 4 ? below(2) : below(level == 1 ? 40 : 6); n; n--) {
        u64 at = level == 4 ? 1 + below(200) : below(512);
        contents[at] = entry_for(level);
    }
    if (chance(3))
        for (u32 i = 0; i < 512; i++)
            contents[i] = odd_value();
    if (chance(2))
        contents[below(512)] = toy_mfn(toy) << 12 | PTE_P | (chance(30) ? PTE_RW : 0); /* itself */
}

static void fill_descriptors(void)
{
    static const u64 good[] = {0x00cff3000000ffff, 0x00affb000000ffff, 0x00cffb000000ffff, 0, 0x0000ec0000080000};
    memset(contents, 0, PAGE_SIZE);
    for (u32 i = 0; i < 30; i++)
        contents[below(24)] = chance(97) ? good[below(ARRAY_SIZE(good))] : odd_value();
}

static void copy_contents(u32 toy)
{
    u64 *to = (u64 *)toys[toy];
    u64 *from = contents;
    u64 count = 512;
    TRY("rep movsq", : "+D"(to), "+S"(from), "+c"(count) : : "memory");
}

/* ---- a toy's own mapping: it becomes ready to be a table, or loose again ---- */

static void became(struct call *c, s64 result)
{
    (void)result;
    role_of[c->cookie[0]] = (u8)c->cookie[1];
}

static u64 flush_flags(void)
{
    static u64 bitmap = 1;
    static const u64 known[] = {UVMF_NONE, UVMF_TLB_FLUSH, UVMF_INVLPG, UVMF_TLB_FLUSH | UVMF_ALL, UVMF_INVLPG | UVMF_ALL};
    if (chance(90))
        return known[below(ARRAY_SIZE(known))];
    return chance(50) ? (u64)&bitmap | UVMF_INVLPG : odd_value();
}

static void change_role(struct call *c)
{
    u32 toy = (u32)below(FIRST_DATA_TOY);
    if (role_of[toy] == PINNED)
        return;
    u64 pte = toy_mfn(toy) << 12 | PTE_P;
    int to_ready = role_of[toy] == LOOSE;
    if (to_ready) {
        if (level_of(toy))
            fill_table(toy);
        else
            fill_descriptors();
        copy_contents(toy);
    } else if (chance(60)) {
        return;
    }
    fill(c, __HYPERVISOR_update_va_mapping, 0, (u64)toys[toy], pte | (to_ready ? 0 : PTE_RW), UVMF_INVLPG, 0);
    c->cookie[0] = toy, c->cookie[1] = to_ready ? READY : LOOSE;
    c->done = became;
}

static void map_scratch(struct call *c)
{
    u64 va = SCRATCH + below(SCRATCH_PAGES) * PAGE_SIZE;
    if (chance(5))
        va = odd_address();
    if (chance(70))
        fill(c, __HYPERVISOR_update_va_mapping, 0, va, l1_entry(), flush_flags(), 0);
    else
        fill(c, __HYPERVISOR_update_va_mapping_otherdomain, 0, va, l1_entry(), flush_flags(), some_domid());
}

/* ---- mmu_update ---- */

static void one_update(struct mmu_update *update)
{
    u32 level = 1 + (u32)below(chance(60) ? 1 : 4), toy = table_toy(level, PINNED);
    u64 index = level == 4 ? 1 + below(200) : below(512);
    u64 value = chance(30) ? 0 : entry_for(level), command = chance(50) ? MMU_NORMAL_PT_UPDATE : MMU_PT_UPDATE_PRESERVE_AD;
    if (chance(5))
        command = MMU_PT_UPDATE_NO_TRANSLATE;
    if (chance(10)) /* a plain frame */
        toy = any_toy(FIRST_DATA_TOY, FIRST_SPARE_TOY, -1), value = rnd();
    if (chance(3)) /* any table, but for where an L4 table leads to this kernel */
        toy = (u32)below(NR_TOYS), index = level_of(toy) == 4 ? below(511) : below(512);
    update->ptr = (toy_mfn(toy) << 12 | index << 3) | command;
    update->val = value;
    if (chance(10)) {
        toy = any_toy(0, FIRST_SPARE_TOY, -1);
        update->ptr = toy_mfn(toy) << 12 | MMU_MACHPHYS_UPDATE;
        update->val = ((u64)toys[toy] - VIRT_BASE) >> 12; /* another would lead this kernel astray */
    }
}

static void pt_update(struct call *c)
{
    u32 count = chance(70) ? 1 : (u32)below(8), *done = arena(4);
    struct mmu_update *updates = arena((count + 1) * sizeof(*updates));
    for (u32 i = 0; i < count; i++)
        one_update(&updates[i]);
    u64 command = updates[0].ptr & 7;
    if ((updates[0].ptr & 7) != MMU_MACHPHYS_UPDATE)
        spoil(updates, count * sizeof(*updates));
    for (u32 i = 0; i < count; i++)
        updates[i].ptr = spare(updates[i].ptr);
    fill(c, __HYPERVISOR_mmu_update, (u32)command, (u64)updates, count, chance(80) ? (u64)done : chance(90) ? 0 : odd_value(),
         some_domid());
    if (chance(2))
        c->args[1] = odd_value();
    if (chance(2))
        c->args[0] = odd_value();
}

/* ---- mmuext_op ---- */

struct loop_op {
    u32 cmd, pad;
    u64 arg1, arg2;
};

/* Whether an L4 table has this kernel where it is. */
static int leads_here(u32 toy)
{
    u64 here = ((const u64 *)kernel_l4)[511], there = ((const u64 *)toys[toy])[511];
    return role_of[toy] == PINNED && !((here ^ there) & (PTE_ADDR | PTE_P | PTE_RW | PTE_NX));
}

/* The kernel runs on a copy of its own L4 table now: as good as the other. */
static void switched(struct call *c, s64 result)
{
    (void)c, (void)result;
}

static void extended(struct call *c)
{
    static u64 mask = 3;
    u32 cmd = (u32)below(21), *done = arena(4), toy = any_toy(FIRST_DATA_TOY, FIRST_SPARE_TOY, -1), level;
    struct loop_op *op = arena(2 * sizeof(*op));
    op->cmd = cmd;
    switch (cmd) {
    case MMUEXT_PIN_L1_TABLE ... MMUEXT_PIN_L4_TABLE:
        level = cmd - MMUEXT_PIN_L1_TABLE + 1;
        toy = table_toy(chance(95) ? level : 1 + (u32)below(4), READY);
        if (role_of[toy] != READY && chance(70))
            return;
        c->cookie[0] = toy, c->cookie[1] = PINNED, c->done = became;
        op->arg1 = toy_mfn(toy);
        break;
    case MMUEXT_UNPIN_TABLE:
        toy = any_toy(0, FIRST_SEGMENT_TOY, PINNED);
        c->cookie[0] = toy, c->cookie[1] = READY, c->done = became;
        op->arg1 = toy_mfn(toy);
        break;
    case MMUEXT_NEW_BASEPTR:
        toy = table_toy(4, PINNED);
        op->arg1 = leads_here(toy) && chance(60) ? toy_mfn(toy) : mfn_of((void *)kernel_l4);
        c->done = switched;
        break;
    case MMUEXT_NEW_USER_BASEPTR:
        op->arg1 = chance(30) ? 0 : toy_mfn(table_toy(4, PINNED));
        break;
    case MMUEXT_INVLPG_LOCAL: case MMUEXT_INVLPG_ALL:
        op->arg1 = chance(80) ? SCRATCH + below(SCRATCH_PAGES) * PAGE_SIZE : odd_value();
        break;
    case MMUEXT_INVLPG_MULTI: case MMUEXT_TLB_FLUSH_MULTI:
        op->arg1 = SCRATCH + below(SCRATCH_PAGES) * PAGE_SIZE;
        op->arg2 = chance(80) ? (u64)&mask : odd_value();
        break;
    case MMUEXT_SET_LDT:
        op->arg1 = chance(90) ? (u64)toys[any_toy(FIRST_SEGMENT_TOY, FIRST_DATA_TOY, -1)] : odd_value();
        op->arg2 = below(513);
        break;
    case MMUEXT_CLEAR_PAGE: case MMUEXT_COPY_PAGE:
        op->arg1 = toy_mfn(toy);
        op->arg2 = toy_mfn(any_toy(0, FIRST_SPARE_TOY, -1));
        break;
    default:
        op->arg1 = odd_value(), op->arg2 = odd_value();
    }
    /* The roles would be wrong, or the kernel without its tables: those go as they are, or wholly wrong. */
    if (!c->done)
        spoil(op, sizeof(*op));
    else if (chance(10))
        op->arg1 = odd_mfn(), c->done = 0, op->cmd = cmd == MMUEXT_NEW_BASEPTR ? MMUEXT_UNPIN_TABLE : cmd;
    if (!c->done && (op->cmd == MMUEXT_CLEAR_PAGE || op->cmd == MMUEXT_COPY_PAGE))
        op->arg1 = spare(op->arg1 << 12) >> 12;
    if (!c->done && op->cmd == MMUEXT_NEW_BASEPTR) /* which another command has become */
        op->cmd = MMUEXT_NEW_USER_BASEPTR;
    fill(c, __HYPERVISOR_mmuext_op, op->cmd < 21 ? op->cmd : NO_SUCH, (u64)op, 1, chance(80) ? (u64)done : chance(90) ? 0 : odd_value(), DOMID_SELF);
    if (!c->done && chance(10))
        c->args[3] = some_domid();
    if (!c->done && chance(3))
        c->args[1] = odd_value();
}

/* ---- the page tables by plain writes ---- */

static void write_table(struct call *c)
{
    u32 toy = table_toy(1, PINNED), form = (u32)below(5);
    u64 value = l1_entry(), at = below(512);
    u64 *entry = (u64 *)toys[toy] + at, bit = below(64);
    (void)c;
    int vector = -1;
    if (role_of[toy] != PINNED)
        return;
    switch (form) {
    case 0:
        vector = TRY("movq %0, (%1)", : : "r"(value), "r"(entry) : "memory");
        break;
    case 1:
        vector = TRY("xchgq %0, (%1)", : "+r"(value) : "r"(entry) : "memory");
        break;
    case 2:
        vector = TRY("lock btrq %0, (%1)", : : "r"(bit), "r"(entry) : "memory", "cc");
        break;
    case 3:
        vector = TRY("movq (%1), %%rax; lock cmpxchgq %0, (%1)", : : "r"(value), "r"(entry) : "rax", "memory", "cc");
        break;
    default:
        vector = TRY("movl %k0, 2(%1)", : : "r"(value), "r"(entry) : "memory");
    }
    count_call(0, SUB_PT_WRITE + 2 + form, vector < 0);
}

/* ---- descriptor tables ---- */

static void global_table(struct call *c)
{
    u32 pages = (u32)below(4), entries = pages * 512 - (pages ? (u32)below(512) : 0);
    u64 *frames = arena(16 * 8);
    for (u32 i = 0; i < pages; i++)
        frames[i] = toy_mfn(any_toy(FIRST_SEGMENT_TOY, FIRST_DATA_TOY, READY));
    spoil(frames, 16 * 8);
    fill(c, __HYPERVISOR_set_gdt, 0, (u64)frames, chance(95) ? entries : odd_value(), 0, 0);
}

static void one_descriptor(struct call *c)
{
    static const u64 good[] = {0x00cff3000000ffff, 0x00affb000000ffff, 0, 0x00409a000000ffff};
    u32 toy = any_toy(FIRST_SEGMENT_TOY, FIRST_SPARE_TOY, chance(50) ? READY : LOOSE);
    u64 at = toy_mfn(toy) << 12 | below(512) << 3;
    fill(c, __HYPERVISOR_update_descriptor, 0, chance(90) ? at : spare(odd_value()),
         chance(80) ? good[below(ARRAY_SIZE(good))] : odd_value(), 0, 0);
}

/* A selector of the LDT or GDT is loaded: pages of the LDT come into use by that. */
static void load_selector(struct call *c)
{
    u16 selector = (u16)(below(chance(90) ? 24 : 8192) << 3 | (chance(50) ? 7 : 3));
    (void)c;
    int vector = TRY("movw %0, %%es", : : "r"(selector));
    asm volatile("movw %0, %%es" ::"r"((u16)0));
    count_call(0, SUB_PT_WRITE + 7, vector < 0);
}

/* ---- reservations ---- */

static void given(struct call *c, s64 result)
{
    (void)result;
    role_of[c->cookie[0]] = GONE;
}

static void got(struct call *c, s64 result)
{
    (void)result;
    u32 toy = (u32)c->cookie[0];
    p2m[((u64)toys[toy] - VIRT_BASE) >> 12] = *(u64 *)c->cookie[1];
    role_of[toy] = LOOSE;
}

static struct xen_memory_reservation *reservation(u64 *list, u64 count)
{
    struct xen_memory_reservation *r = arena(sizeof(*r));
    r->extent_start = list;
    r->nr_extents = count;
    r->domid = DOMID_SELF;
    return r;
}

static void give(struct call *c)
{
    u32 toy = any_toy(FIRST_SPARE_TOY, NR_TOYS, LOOSE);
    u64 *list = arena(8);
    if (role_of[toy] != LOOSE)
        return;
    map_page((u64)toys[toy], 0);
    list[0] = toy_mfn(toy);
    if (chance(15))
        list[0] = chance(50) ? odd_value() | 1UL << 40 : below(0x20000) | 0x20000;
    else
        c->cookie[0] = toy, c->done = given;
    struct xen_memory_reservation *r = reservation(list, 1);
    if (!c->done)
        spoil(r, sizeof(*r)), r->extent_order &= 0xff00000f;
    c->least = 1;
    fill(c, __HYPERVISOR_memory_op, XENMEM_decrease_reservation, XENMEM_decrease_reservation, (u64)r, 0, 0);
}

static void take(struct call *c)
{
    u32 toy = any_toy(FIRST_SPARE_TOY, NR_TOYS, GONE), op = chance(60) ? XENMEM_populate_physmap : XENMEM_increase_reservation;
    u64 *list = arena(8);
    if (role_of[toy] != GONE)
        return;
    list[0] = ((u64)toys[toy] - VIRT_BASE) >> 12;
    struct xen_memory_reservation *r = reservation(list, 1);
    if (chance(15))
        r->mem_flags = (u32)below(64);
    if (chance(10)) /* may get a frame that this kernel then does not know of: not many have room */
        r->extent_order = 10 + (u32)below(20);
    else if (chance(10))
        r->domid = some_domid();
    c->cookie[0] = toy, c->cookie[1] = (u64)list, c->done = got;
    c->least = 1;
    fill(c, __HYPERVISOR_memory_op, op, op, (u64)r, 0, 0);
}

struct exchange {
    struct xen_memory_reservation in, out;
    u64 nr_exchanged;
};

static void exchanged(struct call *c, s64 result)
{
    got(c, result);
    map_page((u64)toys[c->cookie[0]], toy_mfn((u32)c->cookie[0]) << 12 | PTE_P | PTE_RW);
}

static void swap(struct call *c)
{
    u32 toy = any_toy(FIRST_SPARE_TOY, NR_TOYS, LOOSE);
    u64 *old = arena(8), *new = arena(8);
    struct exchange *e = arena(sizeof(*e));
    if (role_of[toy] != LOOSE)
        return;
    map_page((u64)toys[toy], 0);
    *old = toy_mfn(toy), *new = ((u64)toys[toy] - VIRT_BASE) >> 12;
    e->in = e->out = (struct xen_memory_reservation){old, 1, 0, 0, DOMID_SELF};
    e->out.extent_start = new;
    if (chance(20)) { /* spoilt where nothing can come of it */
        *old = toy_mfn((u32)below(FIRST_DATA_TOY));
        spoil(e, sizeof(*e));
        e->in.nr_extents = e->out.nr_extents = chance(50);
    } else {
        c->cookie[0] = toy, c->cookie[1] = (u64)new, c->done = exchanged;
    }
    fill(c, __HYPERVISOR_memory_op, XENMEM_exchange, XENMEM_exchange, (u64)e, 0, 0);
}

/* The frame of a loose spare that lost its mapping comes back. */
static void map_spare(struct call *c)
{
    u32 toy = any_toy(FIRST_SPARE_TOY, NR_TOYS, LOOSE);
    if (role_of[toy] != LOOSE)
        return;
    fill(c, __HYPERVISOR_update_va_mapping, 0, (u64)toys[toy], toy_mfn(toy) << 12 | PTE_P | PTE_RW, flush_flags(), 0);
}

static void ask_memory(struct call *c)
{
    u32 op = (u32)below(XENMEM_CALLS);
    u64 *words = arena(128), *list = arena(1024);
    if (op <= XENMEM_increase_reservation + 1 || op == XENMEM_populate_physmap || op == XENMEM_exchange)
        return;
    switch (op) {
    case XENMEM_machphys_mfn_list:
        words[0] = 8, words[1] = (u64)list;
        break;
    case XENMEM_current_reservation: case XENMEM_maximum_reservation: case XENMEM_maximum_gpfn:
        words[0] = some_domid();
        break;
    case XENMEM_memory_map: case 10:
        words[0] = 16, words[1] = (u64)list;
        break;
    case 13: /* set_memory_map: domid, then the map */
        words[0] = some_domid(), words[1] = 1 + below(8), words[2] = (u64)list;
        break;
    case 27: /* reserved_device_memory_map */
        words[0] = 0, words[1] = (u64)list;
        break;
    default:
        words[0] = some_domid(), words[1] = odd_value(), words[2] = (u64)list;
    }
    spoil(words, 48);
    fill(c, __HYPERVISOR_memory_op, op, op, chance(97) ? (u64)words : odd_value(), 0, 0);
}

const struct family memory_families[] = {
    {change_role, 90, 1}, {map_scratch, 60, 0}, {pt_update, 120, 0}, {extended, 140, 0}, {write_table, 30, 1},
    {global_table, 15, 0}, {one_descriptor, 15, 0}, {load_selector, 10, 1}, {give, 8, 1}, {take, 8, 1},
    {swap, 8, 1}, {map_spare, 8, 1}, {ask_memory, 24, 0}, {0},
};

void memory_init(void)
{
    last_mfn = (u64)xen_memory_op(XENMEM_maximum_ram_page, 0);
    map_in(kernel_l4, SCRATCH, 0);
}
