/*
 * What one trap costs: a paravirtual kernel in one file that makes the same trap in a loop, times it by the TSC, and
 * prints "bench: NAME NANOSECONDS ns" for each row, then "bench: end". It runs as an ordinary guest and, for
 * comparison, as a control domain on real Xen. Its command line names the rows, and how often each is done:
 *
 *     count=100000 null stack_switch
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long u64;

#define VIRT_BASE 0xffffffff80000000
#define MACH2PHYS ((const u64 *)0xffff800000000000)
#define PAGE 4096UL
#define FLAT_CS 0xe033
#define FLAT_SS 0xe02b
#define DOMID_SELF 0x7ff0
#define GTF_PERMIT_ACCESS 1
#define GNTMAP_HOST 2
#define GRANT_REF 8

/* Hypercalls and their operations, by the numbers of the public headers. */
enum { SET_TRAP_TABLE, MMU_UPDATE, STACK_SWITCH = 3, MULTICALL = 13, UPDATE_VA_MAPPING = 14, XEN_VERSION = 17,
       VM_ASSIST = 21,
       CONSOLE_IO = 18, GRANT_TABLE_OP = 20, MMUEXT_OP = 26, SCHED_OP = 29, CALLBACK_OP = 30, EVENT_CHANNEL_OP = 32 };
enum { EVTCHN_BIND_INTERDOMAIN, EVTCHN_SEND = 4, EVTCHN_STATUS, EVTCHN_ALLOC_UNBOUND, EVTCHN_BIND_IPI };
enum { GRANT_MAP, GRANT_UNMAP, GRANT_SETUP, GRANT_COPY = 5 };
enum { PIN_L1, UNPIN = 4 };
enum { SCHED_YIELD, SCHED_SHUTDOWN = 2 };
enum { SHUTDOWN_POWEROFF, SHUTDOWN_CRASH = 3 };
enum { VMASST_ENABLE, VMASST_WRITABLE_PAGETABLES = 2 };
#define UVMF_INVLPG 2
#define SIF_INITDOMAIN 2

struct start_info {
    char magic[32];
    u64 nr_pages, shared_info;
    u32 flags;
    u64 store_mfn;
    u32 store_evtchn;
    u64 console_mfn;
    u32 console_evtchn;
    u64 pt_base, nr_pt_frames, mfn_list, mod_start, mod_len;
    char cmd_line[1024];
};
struct vcpu_info {
    u8 upcall_pending, upcall_mask;
    u64 pending_sel, cr2, pad;
    u32 time_version, pad0;
    u64 tsc_timestamp, system_time;
    u32 tsc_to_system_mul;
    signed char tsc_shift;
};
struct console_ring {
    char in[1024], out[2048];
    volatile u32 in_cons, in_prod, out_cons, out_prod;
};
struct mmu_update {
    u64 ptr, val;
};
struct trap_info {
    u8 vector, flags;
    u16 cs;
    u64 address;
};
struct multicall_entry {
    u64 op, result, args[6];
};
struct mmuext_op {
    u32 cmd;
    u64 arg1, arg2;
};
struct grant_entry {
    u16 flags, domid;
    u32 frame;
};
struct grant_end {
    u64 ref;
    u16 domid, offset;
};

extern char int3_entry[], page_fault_entry[], event_entry[];
struct start_info *info;
struct console_ring *console;
u64 faulted_at; /* where the handler of page faults goes on */
char shared_page[PAGE] __attribute__((aligned(4096))); /* shared_info is mapped here */
static char scratch[PAGE] __attribute__((aligned(4096)));
extern char stack[16384] __asm__("boot_stack");
char stack[16384] __attribute__((aligned(16), used));

#define NOTE_LONG(type, value) \
    ".p2align 2\n.long 4, 8, " #type "\n.asciz \"Xen\"\n.quad " #value "\n"
#define NOTE_TEXT(type, text) \
    ".p2align 2\n.long 4, 2f - 1f, " #type "\n.asciz \"Xen\"\n1: .asciz \"" text "\"\n2: .p2align 2\n"
/* GUEST_OS 6, GUEST_VERSION 7, XEN_VERSION 5, LOADER 8, PAE_MODE 9, FEATURES 10, VIRT_BASE 3, PADDR_OFFSET 4,
 * ENTRY 1. The linker counts physical addresses from VIRT_BASE too, which PADDR_OFFSET takes off again. */
__asm__(".pushsection .note.Xen, \"a\", @note\n"
        NOTE_TEXT(6, "paravirt-bench") NOTE_TEXT(7, "1") NOTE_TEXT(5, "xen-3.0") NOTE_TEXT(8, "generic")
        NOTE_TEXT(9, "yes") NOTE_TEXT(10, "!writable_page_tables|pae_pgdir_above_4gb")
        NOTE_LONG(3, 0xffffffff80000000) NOTE_LONG(4, 0xffffffff80000000) NOTE_LONG(1, _start)
        ".popsection");

/* Xen enters with rcx and r11 on top of what a processor pushes. Every way back is the iret hypercall. */
__asm__(".globl _start\n"
        "_start: leaq boot_stack + 16384(%rip), %rsp\n"
        "movq %rsi, %rdi\n call kernel\n ud2\n"
        "int3_entry: popq %rcx\n popq %r11\n"
        "back: pushq $0\n pushq %rcx\n pushq %r11\n pushq %rax\n movl $23, %eax\n syscall\n"
        "page_fault_entry: popq %rcx\n popq %r11\n addq $8, %rsp\n"
        "pushq faulted_at(%rip)\n popq (%rsp)\n" /* sets the saved rip: pop computes its address after it added 8 */
        "jmp back\n"
        "event_entry: popq %rcx\n popq %r11\n"
        "movb $0, shared_page(%rip)\n movq $0, shared_page + 8(%rip)\n movq $0, shared_page + 2048(%rip)\n"
        "jmp back\n");

static inline long hypercall(u64 number, u64 a, u64 b, u64 c, u64 d)
{
    register u64 r10 __asm__("r10") = d;
    long result;
    __asm__ volatile("syscall"
                     : "=a"(result), "+D"(a), "+S"(b), "+d"(c), "+r"(r10)
                     : "0"(number)
                     : "rcx", "r11", "memory");
    return result;
}

static inline u64 rdtsc(void)
{
    u32 low, high;
    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
    return low | (u64)high << 32;
}

/* ---- console ---- */

static void print(const char *text, u64 length)
{
    u32 port = info->console_evtchn;
    if (!console) {
        hypercall(CONSOLE_IO, 0, length, (u64)text, 0);
        return;
    }
    while (length) {
        while (length && console->out_prod - console->out_cons < sizeof(console->out)) {
            console->out[console->out_prod % sizeof(console->out)] = *text++;
            __asm__ volatile("" ::: "memory");
            console->out_prod++;
            length--;
        }
        hypercall(EVENT_CHANNEL_OP, EVTCHN_SEND, (u64)&port, 0, 0);
        if (length)
            hypercall(SCHED_OP, SCHED_YIELD, 0, 0, 0);
    }
}

static u64 length_of(const char *text)
{
    u64 n = 0;
    while (text[n])
        n++;
    return n;
}

static void say(const char *text)
{
    print(text, length_of(text));
}

static void say_number(u64 value)
{
    char digits[24], *at = digits + sizeof(digits);
    *--at = 0;
    do
        *--at = (char)('0' + value % 10);
    while (value /= 10);
    say(at);
}

static _Noreturn void shut_down(u32 reason)
{
    for (;;)
        hypercall(SCHED_OP, SCHED_SHUTDOWN, (u64)&reason, 0, 0);
}

static void need(int good, const char *what)
{
    if (good)
        return;
    say("bench: failed: ");
    say(what);
    say("\n");
    shut_down(SHUTDOWN_CRASH);
}

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
    {"stack_switch", row_stack_switch},
    {"mmu_update", row_mmu_update},
    {"update_va_mapping", row_update_va_mapping},
    {"multicall_8", row_multicall_8},
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

static const char *word(const char *wanted)
{
    u64 length = length_of(wanted);
    for (const char *at = info->cmd_line; *at; at++) {
        u64 i = 0;
        if (at != info->cmd_line && at[-1] != ' ')
            continue;
        while (i < length && at[i] == wanted[i])
            i++;
        if (i == length && (wanted[length - 1] == '=' || at[i] == ' ' || at[i] == 0))
            return at + length;
    }
    return 0;
}

static u64 to_ns(u64 ticks)
{
    const struct vcpu_info *vcpu = (struct vcpu_info *)shared_page;
    ticks = vcpu->tsc_shift < 0 ? ticks >> -vcpu->tsc_shift : ticks << vcpu->tsc_shift;
    return (u64)((unsigned __int128)ticks * vcpu->tsc_to_system_mul >> 32);
}

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
    if (!(info->flags & SIF_INITDOMAIN))
        console = (struct console_ring *)(VIRT_BASE + MACH2PHYS[info->console_mfn] * PAGE);
    need(hypercall(UPDATE_VA_MAPPING, (u64)shared_page, info->shared_info | 0x63, UVMF_INVLPG, 0) == 0,
         "shared_info");
    ((struct vcpu_info *)shared_page)->upcall_mask = 1;
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
