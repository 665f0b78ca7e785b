/* The Cpu protocol: what the hypervisor and an engine say to each other.
 *
 * An engine runs the code of one virtual CPU at a time until something happens that is the hypervisor's
 * business, and then calls the hypervisor's handler, on its own thread, without leaving its inner loop: at most
 * one leave and re-enter per block, deschedule or timer, never per trap.  Everything the hypervisor may know of
 * an engine stands in this header; nothing of Unicorn or KVM does.
 *
 * The guest's privilege is a bit of ours (cpu.user), not a ring: a 64-bit paravirtual kernel and its processes
 * share ring 3 on real Xen.  How an engine keeps the two apart is its own affair.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PARAVIRT_MACHINE_CPU_H
#define PARAVIRT_MACHINE_CPU_H

#include <stdint.h>

/* Indices into cpu.gpr, in the order in which x86 encodes registers. */
enum { GPR_RAX, GPR_RCX, GPR_RDX, GPR_RBX, GPR_RSP, GPR_RBP, GPR_RSI, GPR_RDI,
       GPR_R8, GPR_R9, GPR_R10, GPR_R11, GPR_R12, GPR_R13, GPR_R14, GPR_R15 };

/* Indices into cpu.seg, in the order in which x86 encodes segment registers. */
enum { SEG_ES, SEG_CS, SEG_SS, SEG_DS, SEG_FS, SEG_GS };

/* A segment register: what a descriptor load leaves in it.  flags is the descriptor's high word masked to its
 * type, S, DPL, P, AVL, L, D/B and G bits (bits 8-15 and 20-23). */
struct cpu_seg {
    uint16_t selector;
    uint32_t flags;
    uint32_t limit;
    uint64_t base;
};

/* Hypercalls of a domain with one vcpu that need not end a run of its guest; an engine may ignore this. */
enum {
    SHORTCUT_ABSENT_VCPUS = 1,  /* VCPUOP_is_up of any other vcpu: -ENOENT */
    SHORTCUT_UPDATES = 2,       /* an mmu_update of one entry of a table that defer_table named: 0, and it joins
                                 * cpu.deferred */
    SHORTCUT_TIMER = 4,         /* VCPUOP_set_singleshot_timer to cpu.timer_from or later: 0, and it is in cpu.timer_set */
    SHORTCUT_RETURN = 8         /* iret to where cpu.process is, while no event is pending: cpu.returned */
};

/* Why the guest stopped. */
enum {
    EXIT_EXCEPTION,  /* vector, error_code, address (for #PF); rip is at the instruction (past it for a trap) */
    EXIT_SOFTINT,    /* `int n`, `int3`, `into`: vector; rip is past the instruction */
    EXIT_SYSCALL,    /* rip is past the instruction; rcx and r11 are not yet written */
    EXIT_SYSENTER,   /* rip is past the instruction */
    EXIT_CPUID,      /* a native cpuid; fill rax..rdx; only these may change */
    EXIT_RDTSC,      /* rdtsc or rdtscp (vector 1): fill rax, rdx (and rcx); only when the clock is virtual */
    EXIT_KICKED,     /* cpu_ops.kick was called, or a deadline passed */
    EXIT_PAUSE,      /* the guest spins: a pause instruction; rip is past it */
    EXIT_BUDGET,     /* the block budget of a deterministic engine is used up */
    EXIT_ENGINE      /* the engine cannot go on with this guest: why, and its own number for that in vector */
};

struct cpu_exit {
    int kind;
    uint32_t vector;
    uint32_t error_code;
    uint64_t address;
    const char *why;  /* of EXIT_ENGINE: a static text */
};

/* What a process was left in: its registers as they stand in the frame that the guest's kernel was given, and its segments. */
struct cpu_process {
    uint64_t rip, rflags, rsp;
    struct cpu_seg cs, ss;
};

/* One virtual CPU as an engine sees it.  The hypervisor's vcpu record begins with it. */
struct cpu {
    uint64_t gpr[16];
    uint64_t rip;
    uint64_t rflags;
    struct cpu_seg seg[6];
    uint64_t kernel_cr3;     /* machine address of the page table of the guest's kernel */
    uint64_t user_cr3;       /* and of its processes; 0 when there is none */
    uint8_t user;            /* 1: guest user mode */
    uint8_t ts;              /* CR0.TS as the guest set it: the next floating-point instruction raises #NM */
    uint8_t segs_dirty;      /* the hypervisor changed seg[]; the engine reloads all and clears this */
    uint8_t shortcuts;       /* which hypercalls an engine may answer by itself: SHORTCUT_... */
    uint32_t tsc_aux;
    uint64_t dr[8];
    uint64_t blocks;         /* translation blocks executed, when the engine counts them */
    void *engine_state;      /* the engine's own: floating point, vector registers, ... */
    const void *space;       /* whose memory it sees: equal for the vcpus of one domain, and never NULL */
    uint32_t number;         /* among these */
    uint32_t nr_deferred;    /* updates of page tables that it has answered so since the last exit, and the hypervisor
                              * carries out, in order, before it looks at the next: {address, value} each */
    const uint64_t *deferred;
    uint64_t timer_from;     /* in ns of system time: about then, at the latest, the hypervisor has the engine kicked */
    uint64_t timer_set;      /* what the guest has set its timer to so since the last exit; 0: it has not */
    uint8_t has_shortcuts;   /* an engine that answers hypercalls by itself says so here */
    uint8_t returned;        /* the guest's kernel went back to its process so, which runs since: user is 1, events are not
                              * masked, */
    uint64_t kernel_gs;      /* and this is the base that its GS had */
    uint64_t vcpu_info;      /* machine address */
    struct cpu_process process;
};

/* What a handler answers. */
enum { CPU_RESUME, CPU_LEAVE };

typedef int (*cpu_handler)(void *owner, struct cpu *cpu, const struct cpu_exit *exit);

/* TLB flush scopes. */
enum { FLUSH_KERNEL = 1, FLUSH_USER = 2, FLUSH_ALL = 3 };

struct cpu_ops {
    const char *name;
    /* Several engines may run vcpus of one space at the same time: each sees at once what another writes, code too, and
     * locked instructions are atomic among them and against the host's threads. */
    uint8_t parallel;
    /* Run cpu until its handler answers CPU_LEAVE.  Returns 0, or an engine error number. */
    int (*run)(void *engine, struct cpu *cpu, cpu_handler handler, void *owner);
    /* From any thread: make the running vcpu exit with EXIT_KICKED soon. */
    void (*kick)(void *engine);
    /* From the engine's own thread: kick at that CLOCK_MONOTONIC time (ns); 0: never. */
    void (*set_deadline)(void *engine, uint64_t deadline_ns);
    /* Deterministic engines: exit with EXIT_BUDGET once cpu.blocks reaches this. */
    void (*set_budget)(void *engine, uint64_t blocks);
    /* The only way to change an entry of a page table in use; pte points into the machine's memory.  0: it is not `old`
     * any more, since a processor set its accessed or dirty bit, and nothing was stored. */
    int (*store_pte)(void *engine, uint64_t *pte, uint64_t old, uint64_t value);
    /* A frame stops being a page table, or becomes one. */
    void (*release_table)(void *engine, uint64_t mfn);
    /* An L1 table of this cpu's domain, until it is released, for SHORTCUT_UPDATES.  Null in an engine without. */
    void (*defer_table)(void *engine, struct cpu *cpu, uint64_t mfn);
    void (*flush_tlb)(void *engine, int scope);
    void (*flush_page)(void *engine, uint64_t address);
    /* Before re-entry: everything queued by the calls above is done when this returns. */
    void (*commit)(void *engine);
    /* The host wrote machine bytes [start, end): drop code translated from them. */
    void (*invalidate_code)(void *engine, uint64_t start, uint64_t end);
    /* The state of a new vcpu, whose space and number are set; NULL when the engine can have no more. */
    void *(*new_state)(void *engine, const struct cpu *cpu);
    void (*free_state)(void *engine, void *state);
    /* Copy floating-point and vector state as a 512-byte FXSAVE image (into, or out of, an idle cpu). */
    void (*get_fxsave)(void *engine, struct cpu *cpu, uint8_t *image);
    void (*set_fxsave)(void *engine, struct cpu *cpu, const uint8_t *image);
    /* From any thread, while the engine runs no vcpu: what it still has of the one that ran last goes into the state of
     * that one, so that another engine can run it.  Null in an engine that keeps nothing. */
    void (*unload)(void *engine);
    /* From any thread: when hold returns, the engine is out of guest code, and it stays out until unhold; each hold has
     * its unhold.  For words that must not change while the hypervisor looks at them. */
    void (*hold)(void *engine);
    void (*unhold)(void *engine);
    /* Fill in those of the entries for L4 slots 256 to 271 that the engine needs in every L4 table; `kernel`: those to
     * which it may change them, by itself, in a table that only a guest's kernel runs on. */
    void (*reserved_entries)(void *engine, int kernel, uint64_t *entries);
};

#endif
