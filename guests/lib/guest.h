/*
 * The runtime shared by our small kernels: console, traps, page tables, user mode, verdict.
 *
 * A kernel defines `void guest_main(void)` and `const char guest_name[]`. It prints lines that are the same on
 * every run and every machine (no frame numbers, no times), checks what it knows, and returns; the runtime
 * then prints "TEST name: PASS" or "TEST name: FAIL n" and powers the domain off.
 */
#ifndef GUEST_H
#define GUEST_H

#include "hypercall.h"

#define VIRT_BASE 0xffffffff80000000UL
#define PAGE_SIZE 4096UL
#define PAGE_MASK (~(PAGE_SIZE - 1))

#define PTE_P 0x001UL
#define PTE_RW 0x002UL
#define PTE_US 0x004UL
#define PTE_PWT 0x008UL
#define PTE_PCD 0x010UL
#define PTE_A 0x020UL
#define PTE_D 0x040UL
#define PTE_PS 0x080UL
#define PTE_G 0x100UL
#define PTE_NX (1UL << 63)
#define PTE_ADDR 0x000ffffffffff000UL
#define PTE_TABLE (PTE_P | PTE_RW | PTE_US | PTE_A | PTE_D)

#define X86_EFLAGS_CF 0x1
#define X86_EFLAGS_TF 0x100
#define X86_EFLAGS_IF 0x200
#define X86_EFLAGS_DF 0x400
#define X86_EFLAGS_IOPL 0x3000
#define X86_EFLAGS_NT 0x4000
#define X86_EFLAGS_AC 0x40000
#define X86_EFLAGS_ID 0x200000

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

/* What a trap stub leaves on the stack. */
struct regs {
    u64 r15, r14, r13, r12, rbp, rbx, r11, r10, r9, r8, rax, rcx, rdx, rsi, rdi;
    u64 vector;
    u64 error; /* on the way back: the flags word of the iret hypercall */
    u64 rip, cs, rflags, rsp, ss;
};

/* Pseudo-vectors of the callbacks. */
#define VEC_EVENT 0x100
#define VEC_SYSCALL 0x101
#define VEC_SYSCALL32 0x102
#define VEC_SYSENTER 0x103
#define VEC_NMI 0x104
#define VEC_FAILSAFE 0x105

/* ---- start ---- */
extern struct start_info *start_info;
extern struct shared_info *shared_info;
extern struct vcpu_info *vcpu0; /* where Xen keeps this kernel's vcpu 0: moves when registered elsewhere */
extern u64 boot_rsp, boot_rflags;
extern const char guest_name[];
extern char image_start[], image_end[], boot_stack[], boot_stack_top[];
void guest_main(void);
int is_domU(void);
_Noreturn void shutdown(u32 reason);
_Noreturn void finish(void);

/* ---- console ---- */
int printf(const char *format, ...) __attribute__((format(printf, 1, 2)));
int snprintf(char *out, u64 size, const char *format, ...) __attribute__((format(printf, 3, 4)));
void console_write(const char *text, u64 length);
void console_map(void);

/* ---- text and memory ---- */
void *memset(void *to, int value, u64 size);
void *memcpy(void *to, const void *from, u64 size);
int memcmp(const void *a, const void *b, u64 size);
u64 strlen(const char *text);
int starts_with(const char *text, const char *prefix);
/* Whether the command line has this word. */
int asked_for(const char *word);
const char *error_name(s64 result); /* "0", "7", "-EINVAL" */

/* ---- verdict ---- */
extern int failures;
void check_that(int good, const char *what, const char *file, int line);
#define check(condition) check_that(!!(condition), #condition, __FILE__, __LINE__)
/* Print "label: result" with the error's name, and count a failure unless it is the expected result. */
void expect_result(const char *label, s64 result, s64 expected);

/* ---- traps ---- */
typedef void trap_handler(struct regs *);
extern char trap_stubs[];
extern char event_callback[], failsafe_callback[], syscall_callback[], syscall32_callback[];
extern char sysenter_callback[], nmi_callback[];
extern u64 failsafe_selectors[4]; /* ds es fs gs, as the last failsafe frame had them */
#define TRAP_STUB(vector) ((u64)trap_stubs + 16 * (vector))
void traps_init(void);
s64 set_gate(u8 vector, u8 flags, u16 cs, u64 address);
/* Handlers by vector or pseudo-vector; they run before the fix-up of TRY. Null: the default. */
extern trap_handler *handlers[0x106];
/* Told of a trap that nobody expects, before it ends the domain: may go on elsewhere instead. */
extern trap_handler *last_resort;
s64 register_callback(u16 type, u16 flags, void *address);

/* The last fault that TRY caught. */
struct fault {
    int vector; /* -1: there was none */
    u64 error, rip, cs, rflags, rsp, ss, cr2;
    u8 saved_mask;   /* evtchn_upcall_mask as the frame has it (byte 4 of the cs word) */
    u8 mask_inside;  /* the mask in the handler */
    u64 offset;      /* rip - first byte of the tried text */
};
extern struct fault fault;
extern u64 try_start, try_fixup;
/*
 * Run instructions, with operands as in an asm statement (a lone colon when there are none); a fault inside
 * lands behind them, at `after`. The text must leave rsp as it was, unless `after` mends it.
 */
#define TRY_THEN(text, after, ...)                                                         \
    ({                                                                                     \
        fault.vector = -1;                                                                 \
        asm volatile("" ::: "memory");                                                     \
        asm volatile("movq $771f, try_start(%%rip)\n\tmovq $772f, try_fixup(%%rip)\n"      \
                     "771:\n\t" text "\n772:\n\tmovq $0, try_fixup(%%rip)\n\t" after      \
                     __VA_ARGS__);                                                         \
        asm volatile("" ::: "memory");                                                     \
        fault.vector;                                                                      \
    })
#define TRY(text, ...) TRY_THEN(text, "", __VA_ARGS__)
const char *vector_name(int vector);
/* "label: #GP(0) at +0" or "label: no fault"; a page fault shows its address when it is below 4 GiB. */
void show_fault(const char *label);
/* The same, and a failure unless vector and error code are these (vector -1: no fault expected). */
void expect_fault(const char *label, int vector, u64 error);

int save_context(u64 context[8]) __attribute__((returns_twice));
_Noreturn void load_context(u64 context[8]);
_Noreturn void resume(const struct regs *regs);

/* ---- events ---- */
static inline void events_mask(void)
{
    vcpu0->evtchn_upcall_mask = 1;
    asm volatile("" ::: "memory");
}
void events_unmask(void); /* and take what is pending */
static inline int test_and_clear_bit(u64 *words, u64 bit)
{
    u8 old;
    asm volatile("lock btrq %2, %0; setc %1" : "+m"(*(char(*)[512])words), "=q"(old) : "r"(bit) : "memory");
    return old;
}
static inline int test_bit(const volatile u64 *words, u64 bit)
{
    return words[bit / 64] >> (bit % 64) & 1;
}
static inline void set_bit(u64 *words, u64 bit)
{
    asm volatile("lock btsq %1, %0" : "+m"(*(char(*)[512])words) : "r"(bit) : "memory");
}
static inline void clear_bit(u64 *words, u64 bit)
{
    test_and_clear_bit(words, bit);
}
/* Nanoseconds that a busy host may take over anything: whoever waits for what must come about gives up after them. */
#define PATIENCE 100000000000UL
u64 system_time(void); /* nanoseconds since Xen's start, from vcpu 0's time record */
void sleep_until(u64 time); /* off the processor, at least once, until system_time() is there */
static inline u64 rdtsc(void)
{
    u32 low, high;
    asm volatile("rdtsc" : "=a"(low), "=d"(high));
    return low | (u64)high << 32;
}

/* ---- page tables ---- */
extern u64 *p2m;
extern u64 kernel_l4; /* virtual address of the current L4 table */
#define m2p ((const u64 *)MACH2PHYS_VIRT_START)
u64 mfn_of(const void *address);
void *va_of_mfn(u64 mfn);
u64 machine_of(const void *address);
u64 *entry_of(u64 va, int level); /* the entry for va in the level's table (1..4); null if there is none */
u64 *pte_of(u64 va);
s64 set_entry(const void *entry, u64 value); /* mmu_update of one entry: the result */
s64 mmuext(u32 cmd, u64 arg1, u64 arg2);
s64 map_page(u64 va, u64 pte); /* update_va_mapping with INVLPG */
void *page_alloc(void);        /* a zeroed page of the image; there are PAGE_POOL of them */
s64 page_readonly(void *page);
s64 page_writable(void *page);
/* A page table for the kernel: takes a fresh page, makes it read-only. */
u64 *table_alloc(void);
/* A page like an L4 table, without Xen's own slots: may be pinned, or changed after page_writable. */
u64 *root_copy(u64 root);
/* Map one page anywhere, building tables in the given root (kernel_l4 or the user's) as needed. */
void map_in(u64 root, u64 va, u64 pte);

/* ---- another vcpu ---- */
/* A context that begins at `entry` on its own stack, on our page tables, and takes no traps. */
void vcpu_context(struct vcpu_guest_context *context, void (*entry)(void), char *stack, u64 size);
void vcpu_takes_traps(struct vcpu_guest_context *context, u8 first, u8 last, u8 flags);
void vcpu_takes_callbacks(struct vcpu_guest_context *context);

/* ---- user mode ---- */
#define USER_CODE 0x400000UL
#define USER_STACK_TOP 0x600000UL
#define USER_DATA 0x500000UL
extern u64 user_l4;
void user_init(void); /* user page tables with a code page, a data page and a stack page; mapped in both views */
/* Copy code to USER_CODE and run it there until it makes a trap; the frame that the kernel then got. */
extern struct regs user_exit;
extern u64 user_exit_cr2;
int run_user(const void *code, u64 size, struct regs *registers); /* returns the vector */
void user_frame(struct regs *registers); /* fresh registers that start at USER_CODE */
#define USER_ASM(name, text) \
    extern char name[], name##_end[]; \
    asm(".pushsection .rodata\n.globl " #name "\n" #name ":\n" text "\n.globl " #name "_end\n" #name "_end:\n.popsection")

#endif
