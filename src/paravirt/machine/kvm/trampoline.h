/* The trampoline: what has to be in a guest's address space so that its exceptions and system calls end KVM_RUN.
 *
 * Guest code, kernel and processes alike, runs at CPL 3.  Ring 0 of the virtual machine belongs to a few stubs:
 * each gate of the interrupt table, and each entry of `syscall` and `sysenter`, leads to an `out` to one port, which
 * ends KVM_RUN; the processor's frame is then on a stack that the host can read.  The stubs, tables and stacks are
 * pages above the machine's memory, and appear in two of the sixteen L4 slots that Xen reserves, for the
 * supervisor only; so no guest entry can name them.
 *
 *   slot 258   the trampoline's pages (struct below gives their order)
 *   slot 259   all of the machine's memory, linearly: through it ring 0 repairs shadow page tables (see run.c)
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PARAVIRT_KVM_TRAMPOLINE_H
#define PARAVIRT_KVM_TRAMPOLINE_H

#include <stddef.h>
#include <stdint.h>

#define PAGE 4096u

#define TRAMPOLINE_SLOT 258
#define LINEAR_SLOT 259
#define TRAMPOLINE_BASE 0xffff810000000000ull
#define LINEAR_BASE 0xffff818000000000ull

/* Pages of the trampoline, by index. */
enum {
    PAGE_L3,          /* of slot 258 */
    PAGE_L2,
    PAGE_L1,
    PAGE_STUBS,
    PAGE_IDT,
    PAGE_ZERO,        /* stands for the pages of a descriptor table that are empty */
    PAGE_DESCRIPTORS, /* page 14 of the descriptor table: the selectors that Xen offers, 0xe008 and on */
    PAGE_LINEAR_L3,   /* of slot 259 */
    PAGE_KERNEL_L3,   /* of slot 258 in a table of the guest's kernel alone: as above, but for the stubs and the queue */
    PAGE_KERNEL_L2,
    PAGE_KERNEL_L1,
    PAGE_KERNEL_STUBS, /* appears where PAGE_STUBS does: a system call leads to the shortcuts (shortcuts.c) */
    PAGE_QUEUE,       /* no page that ring 3 can write to must follow it */
    PAGE_GDT,         /* sixteen addresses, not pages: the table as the processor sees it */
    PAGE_VCPUS = PAGE_GDT + 16,
    PAGES_PER_VCPU = 2,
    MAX_VCPUS_PER_SPACE = 64,
    TRAMPOLINE_PAGES = PAGE_VCPUS + PAGES_PER_VCPU * MAX_VCPUS_PER_SPACE
};

/* No page of the trampoline's: where the guest's kernel, and the stub, see the page of the vcpu_info. */
#define PAGE_INFO PAGE_KERNEL_L3

/* A vcpu's first page: its task state segment below, its exception stack above, and in between how ring 0 leaves for a
 * process.  Its second page has the programs: from its beginning that which repairs page tables (pagetables.c), and
 * behind that the departure. */
#define TSS_LIMIT 107u
#define STACK_TOP PAGE
#define DEPARTURE_PLACE 0x800
#define DEPARTURE_PROGRAM 0xf80
struct departure {
    uint64_t table;    /* CR3; the process's rax while that is loaded */
    uint64_t null;     /* its selector in GS */
    uint64_t frame[5]; /* what `iretq` pops */
};
#define MAX_REPAIRS 256u

/* How far PAGE_QUEUE, and the program by which the first vcpu departs, are from PAGE_STUBS, for the stubs; and how far that
 * is from what it departs with. */
#define QUEUE_DISTANCE 0x9000
#define DEPARTURE_PROGRAM_DISTANCE 0x1bf80
#define DEPARTURE_DISTANCE 0x1780
#define QUEUE_LENGTH 215u
#define QUEUE_TABLES 64u

/* PAGE_QUEUE.  The guest's kernel can write to all of it: nothing here is trusted. */
struct queue {
    uint64_t rcx, rax;  /* as they were at the system call in progress */
    uint64_t flags;     /* AH and AL: its flags, by `lahf` and `seto` */
    uint64_t next;      /* address of the entry that is filled next */
    uint64_t shortcuts; /* cpu.shortcuts */
    uint64_t timer_from; /* cpu.timer_from */
    uint64_t timer_set;  /* what the timer is set to; 0: it was not set */
    uint64_t info;       /* address of the vcpu_info */
    uint64_t tables[QUEUE_TABLES]; /* L1 tables whose updates may be put off, by frame number modulo the length */
    uint64_t process[5]; /* what the frame of an iret must have for it to be answered: rip, cs, rflags, rsp, ss */
    uint64_t process_rax, process_r11, process_rcx; /* and what it had of these */
    uint64_t kernel_gs;  /* the base of GS, as of the last entry */
    uint64_t unused;
    uint64_t entries[QUEUE_LENGTH][2];
};

/* The port that the stubs write to.  The task state segment opens it, and no other, where ring 3 executes them. */
#define STUB_PORT 0x10

/* Offsets into PAGE_STUBS. */
#define STUB_BYTES 16u
#define STUB_EXCEPTIONS 0u
#define STUB_SYSCALL 0x200u
#define STUB_SYSCALL32 0x210u
#define STUB_SYSENTER 0x220u
#define STUB_REPAIRED 0x230u
#define STUB_RETURNED 0x240u
#define STUB_DIVIDE 0x250u /* of vector 0: where its `out` alone does not fit */
#define STUB_DIVIDE_BYTES 0x20u
#define STUB_DIVIDE_FROM 0x254u /* upper half of the addresses from which it leads to the departure */
#define STUB_SHORTCUTS 0x400u
#define STUB_SHORTCUTS_SAVED 0x40eu     /* from here on rcx and rax are in the queue's page */
#define STUB_SHORTCUTS_COMMITTED 0x540u /* and from here on the call was made, and its answer is 0 */
#define STUB_RETURN 0x580u
#define STUB_RETURN_COMMITTED 0x680u /* from here on the guest is back in its process */
#define STUB_RETURN_UNDONE 0x6b0u    /* unless the stub has found an event, and is here */
#define STUB_SHORTCUTS_END 0x6c0u

#define SELECTOR_RING0_CODE 0xe008
#define SELECTOR_RING0_DATA 0xe010

static inline uint64_t trampoline_address(unsigned page)
{
    return TRAMPOLINE_BASE + (uint64_t)page * PAGE;
}

/* Bytes of the region above the machine's memory: the trampoline's pages and the linear map's L2 tables. */
size_t trampoline_bytes(uint64_t memory_bytes);

/* Fill a region of that size, which the guest will have at machine address `base`.  user_stubs: ring 3 must be
 * able to execute the stubs (a host whose `syscall` arrives there). */
void trampoline_build(uint8_t *region, uint64_t base, uint64_t memory_bytes, int user_stubs);

/* The pages of one vcpu, in a region.  user_stubs: ring 3 must be able to write to the stubs' port, too. */
void trampoline_add_vcpu(uint8_t *region, unsigned vcpu, int user_stubs);

/* In the stubs of a guest's kernel: whether an exception of vector 0 in a stub leads to its process. */
void trampoline_allow_departure(uint8_t *stubs, int allowed);

/* Entries for L4 slots 258 and 259; `kernel`: of a table that only the guest's kernel runs on. */
uint64_t trampoline_l4_entry(uint64_t base, int kernel);
uint64_t linear_l4_entry(uint64_t base);

#endif
