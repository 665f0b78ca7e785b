/*
 * What one trap costs: a paravirtual kernel in one file that makes the same trap in a loop, times it by the TSC, and
 * prints "bench: NAME NANOSECONDS ns" for each row, then "bench: end". It runs as an ordinary guest and, for
 * comparison, as a control domain on real Xen. Its command line names the rows, and how often each is done:
 *
 *     count=100000 null stack_switch
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "boot.h"

static char scratch[PAGE] __attribute__((aligned(4096)));

/* ---- page tables ---- */

static u64 mfn_of(const void *address)
{
    return ((const u64 *)info->mfn_list)[((u64)address - VIRT_BASE) / PAGE];
}

static u64 *entry_of(const void *address)
{
    u64 *table = (u64 *)info->pt_base;
    for (int shift = 39;; shift -= 9) {
        u64 *entry = &table[(u64)address >> shift & 511];
        if (shift == 12)
            return entry;
        table = (u64 *)(VIRT_BASE + MACH2PHYS[(*entry & 0xffffffffff000) / PAGE] * PAGE);
    }
}

/* ---- rows: each does its trap `count` times; what changes something changes it back ---- */

static u64 *scratch_entry, scratch_entry_machine, scratch_value;
static u32 port;

static void row_nothing(u64 count)
{
    while (count--)
        __asm__ volatile("");
}

static void row_null(u64 count)
{
    while (count--)
        hypercall(XEN_VERSION, 0, 0, 0, 0);
}

static void row_python(u64 count)
{
    while (count--)
        hypercall(XEN_VERSION, 7, 0, 0, 0); /* XENVER_pagesize */
}

static void row_stack_switch(u64 count)
{
    while (count--)
        hypercall(STACK_SWITCH, FLAT_SS, (u64)stack + sizeof(stack), 0, 0);
}

static void row_mmu_update(u64 count)
{
    struct mmu_update update = {scratch_entry_machine, 0};
    while (count--) {
        update.val = update.val ? 0 : scratch_value;
        need(hypercall(MMU_UPDATE, (u64)&update, 1, 0, DOMID_SELF) == 0, "mmu_update");
    }
}

static void row_update_va_mapping(u64 count)
{
    u64 value = 0;
    while (count--) {
        value = value ? 0 : scratch_value;
        need(hypercall(UPDATE_VA_MAPPING, (u64)scratch, value, UVMF_INVLPG, 0) == 0, "update_va_mapping");
    }
}

static void row_multicall_8(u64 count)
{
    static struct mmu_update updates[8];
    static struct multicall_entry calls[8];
    for (u64 i = 0; i < 8; i++) {
        updates[i] = (struct mmu_update){scratch_entry_machine, i & 1 ? scratch_value : 0};
        calls[i] = (struct multicall_entry){MMU_UPDATE, 0, {(u64)&updates[i], 1, 0, DOMID_SELF, 0, 0}};
    }
    while (count--)
        need(hypercall(MULTICALL, (u64)calls, 8, 0, 0) == 0 && calls[7].result == 0, "multicall");
}

/* The longest batches that Xen does not interrupt at once: `count` updates, 4096 at a time. */
static void row_batch_4096(u64 count)
{
    static struct mmu_update updates[4096];
    for (u64 i = 0; i < 4096; i++)
        updates[i] = (struct mmu_update){scratch_entry_machine, i & 1 ? scratch_value : 0};
    for (u64 some = count < 4096 ? count : 4096; count; count -= some, some = count < 4096 ? count : 4096)
        need(hypercall(MMU_UPDATE, (u64)updates, some, 0, DOMID_SELF) == 0, "mmu_update");
}

static void row_page_table_write(u64 count)
{
    u64 value = 0;
    while (count--) {
        value = value ? 0 : scratch_value;
        *(volatile u64 *)scratch_entry = value; /* the table is mapped read-only: Xen carries the store out */
    }
}

static void row_int3(u64 count)
{
    while (count--)
        __asm__ volatile("int3" ::: "rcx", "r11", "memory");
}

static void row_page_fault(u64 count)
{
    while (count--)
        __asm__ volatile("leaq 1f(%%rip), %%rcx\n movq %%rcx, faulted_at(%%rip)\n movb $0, 0x1000\n 1:"
                         ::: "rcx", "r11", "memory");
}

static void row_cpuid(u64 count)
{
    while (count--) {
        u32 a = 0, c = 0;
        __asm__ volatile("ud2\n .ascii \"xen\"\n cpuid" : "+a"(a), "+c"(c) : : "rbx", "rdx");
    }
}

static void row_event(u64 count)
{
    volatile struct vcpu_info *vcpu = (struct vcpu_info *)shared_page;
    vcpu->upcall_mask = 0;
    while (count--)
        need(hypercall(EVENT_CHANNEL_OP, EVTCHN_SEND, (u64)&port, 0, 0) == 0, "send");
    vcpu->upcall_mask = 1;
}

static void row_event_mask(u64 count)
{
    volatile struct vcpu_info *vcpu = (struct vcpu_info *)shared_page;
    while (count--) {
        vcpu->upcall_mask = 0;
        __asm__ volatile("" ::: "memory");
        if (vcpu->upcall_pending)
            hypercall(XEN_VERSION, 0, 0, 0, 0);
        vcpu->upcall_mask = 1;
    }
}

/* ---- grants: the domain's own, to itself, as its console and disk use them ---- */

static char granted[PAGE] __attribute__((aligned(4096)));
static u16 self;

/* What a channel to oneself says of its other end. */
static u16 own_domid(void)
{
    static struct {
        u16 dom, remote;
        u32 port;
    } unbound = {DOMID_SELF, DOMID_SELF, 0};
    static struct {
        u16 remote;
        u32 remote_port, port;
    } bound = {DOMID_SELF, 0, 0};
    static struct {
        u16 dom;
        u32 port, status, vcpu;
        u16 remote;
        u32 remote_port;
    } status = {DOMID_SELF, 0, 0, 0, 0, 0};
    need(hypercall(EVENT_CHANNEL_OP, EVTCHN_ALLOC_UNBOUND, (u64)&unbound, 0, 0) == 0, "alloc_unbound");
    bound.remote_port = unbound.port;
    need(hypercall(EVENT_CHANNEL_OP, EVTCHN_BIND_INTERDOMAIN, (u64)&bound, 0, 0) == 0, "bind_interdomain");
    status.port = bound.port;
    need(hypercall(EVENT_CHANNEL_OP, EVTCHN_STATUS, (u64)&status, 0, 0) == 0, "status");
    return status.remote;
}

/* The grant table appears where `granted` was, and what was there is granted: its frame is in the table now. */
static u64 grant_one(void)
{
    static u64 frame, list;
    static struct {
        u16 dom;
        u32 frames;
        short status;
        u64 *list;
    } setup = {DOMID_SELF, 1, 0, &list};
    if (frame)
        return frame;
    frame = mfn_of(granted);
    self = own_domid();
    need(hypercall(GRANT_TABLE_OP, GRANT_SETUP, (u64)&setup, 1, 0) == 0 && setup.status == 0, "setup_table");
    need(hypercall(UPDATE_VA_MAPPING, (u64)granted, list << 12 | 0x63, UVMF_INVLPG, 0) == 0, "grant table");
    ((volatile struct grant_entry *)granted)[GRANT_REF] = (struct grant_entry){GTF_PERMIT_ACCESS, self, (u32)frame};
    return frame;
}

static void row_grant_map(u64 count)
{
    struct {
        u64 address;
        u32 flags, ref;
        u16 dom;
        short status;
        u32 handle;
        u64 bus_address;
    } map;
    struct {
        u64 address, bus_address;
        u32 handle;
        short status;
    } unmap;
    grant_one();
    need(hypercall(UPDATE_VA_MAPPING, (u64)scratch, 0, UVMF_INVLPG, 0) == 0, "update_va_mapping");
    while (count--) {
        map.address = (u64)scratch, map.flags = GNTMAP_HOST, map.ref = GRANT_REF, map.dom = self;
        need(hypercall(GRANT_TABLE_OP, GRANT_MAP, (u64)&map, 1, 0) == 0 && map.status == 0, "map_grant_ref");
        unmap.address = (u64)scratch, unmap.bus_address = 0, unmap.handle = map.handle;
        need(hypercall(GRANT_TABLE_OP, GRANT_UNMAP, (u64)&unmap, 1, 0) == 0 && unmap.status == 0, "unmap_grant_ref");
    }
    need(hypercall(UPDATE_VA_MAPPING, (u64)scratch, scratch_value, UVMF_INVLPG, 0) == 0, "update_va_mapping");
}

static void row_grant_copy(u64 count)
{
    struct {
        struct grant_end source, dest;
        u16 length, flags;
        short status;
    } copy = {{GRANT_REF, 0, 0}, {mfn_of(scratch), DOMID_SELF, 0}, 1500, 1, 0};
    grant_one();
    copy.source.domid = self;
    while (count--)
        need(hypercall(GRANT_TABLE_OP, GRANT_COPY, (u64)&copy, 1, 0) == 0 && copy.status == 0, "copy");
}

/* A full L1 table: 512 entries that map one page read-only. */
static void row_validate_page(u64 count)
{
    static u64 table[512] __attribute__((aligned(4096)));
    struct mmuext_op op = {PIN_L1, mfn_of(table), 0};
    u64 *entry = entry_of(table), value = *entry;
    for (int i = 0; i < 512; i++)
        table[i] = mfn_of(scratch) << 12 | 1;
    need(hypercall(UPDATE_VA_MAPPING, (u64)table, value & ~2UL, UVMF_INVLPG, 0) == 0, "read-only");
    while (count--) {
        op.cmd = PIN_L1;
        need(hypercall(MMUEXT_OP, (u64)&op, 1, 0, DOMID_SELF) == 0, "pin");
        op.cmd = UNPIN;
        need(hypercall(MMUEXT_OP, (u64)&op, 1, 0, DOMID_SELF) == 0, "unpin");
    }
    need(hypercall(UPDATE_VA_MAPPING, (u64)table, value, UVMF_INVLPG, 0) == 0, "writable");
}

static const struct {
    const char *name;
    void (*run)(u64 count);
} rows[] = {
    {"nothing", row_nothing},
    {"null", row_null},
    {"python", row_python},
    {"stack_switch", row_stack_switch},
    {"mmu_update", row_mmu_update},
    {"update_va_mapping", row_update_va_mapping},
    {"multicall_8", row_multicall_8},
    {"batch_4096", row_batch_4096},
    {"page_table_write", row_page_table_write},
    {"int3", row_int3},
    {"page_fault", row_page_fault},
    {"cpuid", row_cpuid},
    {"event", row_event},
    {"event_mask", row_event_mask},
    {"grant_map", row_grant_map},
    {"grant_copy", row_grant_copy},
    {"validate_page", row_validate_page},
};

static void measure(int row, u64 count)
{
    rows[row].run(2); /* once for the caches; even, so that what toggles is as before */
    u64 start = rdtsc();
    rows[row].run(count);
    u64 tenths = to_ns((rdtsc() - start) * 10) / count;
    say("bench: ");
    say(rows[row].name);
    say(" ");
    say_number(tenths / 10);
    say(".");
    say_number(tenths % 10);
    say(" ns\n");
}

static void set_up(void)
{
    static struct trap_info traps[3];
    static struct {
        u16 type, flags;
        u64 address;
    } callback;
    static struct {
        u32 vcpu, port;
    } ipi;
    map_shared();
    traps[0] = (struct trap_info){3, 3, FLAT_CS, (u64)int3_entry};
    traps[1] = (struct trap_info){14, 0, FLAT_CS, (u64)page_fault_entry};
    need(hypercall(SET_TRAP_TABLE, (u64)traps, 0, 0, 0) == 0, "set_trap_table");
    /* Without it a store into a page table is the guest's own page fault. */
    need(hypercall(VM_ASSIST, VMASST_ENABLE, VMASST_WRITABLE_PAGETABLES, 0, 0) == 0, "vm_assist");
    callback.address = (u64)event_entry;
    need(hypercall(CALLBACK_OP, 0, (u64)&callback, 0, 0) == 0, "callback_op");
    need(hypercall(EVENT_CHANNEL_OP, EVTCHN_BIND_IPI, (u64)&ipi, 0, 0) == 0, "bind_ipi");
    port = ipi.port;
    u64 *masks = (u64 *)(shared_page + 2048 + 512);
    for (int i = 0; i < 64; i++)
        masks[i] = ~0UL;
    masks[port / 64] &= ~(1UL << port % 64);
    scratch[0] = 1;
    scratch_entry = entry_of(scratch);
    scratch_value = *scratch_entry;
    scratch_entry_machine = mfn_of(scratch_entry) * PAGE + ((u64)scratch_entry & (PAGE - 1));
}

__attribute__((used)) void kernel(struct start_info *start)
{
    info = start;
    set_up();
    u64 count = 0;
    const char *at = word("count=");
    for (; at && *at >= '0' && *at <= '9'; at++)
        count = count * 10 + (u64)(*at - '0');
    count += count & 1;
    int chosen = 0;
    for (int i = 0; i < (int)(sizeof(rows) / sizeof(rows[0])); i++)
        if (count && word(rows[i].name)) {
            measure(i, count);
            chosen++;
        }
    need(chosen > 0, "the command line names no row, or no count");
    say("bench: end\n");
    shut_down(SHUTDOWN_POWEROFF);
}
