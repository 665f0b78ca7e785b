/*
 * What the kernels of the benchmarks have in common: notes, entries, hypercalls, a console, words of the command line.
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

/* The console's ring, and shared_info, are mapped. */
static void map_shared(void)
{
    if (!(info->flags & SIF_INITDOMAIN))
        console = (struct console_ring *)(VIRT_BASE + MACH2PHYS[info->console_mfn] * PAGE);
    need(hypercall(UPDATE_VA_MAPPING, (u64)shared_page, info->shared_info | 0x63, UVMF_INVLPG, 0) == 0,
         "shared_info");
    ((struct vcpu_info *)shared_page)->upcall_mask = 1;
}
