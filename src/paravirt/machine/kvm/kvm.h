/* The native half of the KVM engine.
 *
 * space.c        virtual machines: one for each domain, with the machine's memory and a trampoline, and their vcpus
 * trampoline.c   what ring 0 of such a machine holds
 * run.c          the inner loop behind the Cpu protocol; with
 * kick.c         how it is stopped,
 * pagetables.c   how changes of page tables reach the guest,
 * registers.c    registers into and out of KVM's record,
 * exits.c        what the end of a run means,
 * shortcuts.c    and hypercalls that do not end one
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PARAVIRT_KVM_KVM_H
#define PARAVIRT_KVM_KVM_H

#include <linux/kvm.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "paravirt/machine/cpu.h"
#include "paravirt/machine/deadline.h"
#include "trampoline.h"

/* What the self-test finds out about the host (selftest.py says how).  Until then each is what is safe everywhere. */
struct kvm_findings {
    uint8_t shadow_tables;   /* a store into a live page table must be repaired from inside */
    uint8_t reload_repairs;  /* and a repair counts when CR3 is loaded after it */
    uint8_t user_stubs;      /* `syscall` enters its stub in ring 3 */
    uint8_t real_selectors;  /* selectors that ring 3 reads are those of the virtual machine */
    uint8_t rip_after_out;   /* KVM_EXIT_IO leaves rip past the `out` */
    uint8_t icebp_is_fault;  /* `icebp` is reported before it, not behind */
    uint8_t shortcuts;       /* the stub of `syscall` may answer some hypercalls (shortcuts.c), */
    uint8_t returns;         /* and iret among them */
};

struct kvm_cpuid_leaf {
    uint32_t leaf, subleaf, any_subleaf;
    uint32_t eax, ebx, ecx, edx;
};

#define MAX_CPUID_LEAVES 64

/* One domain's virtual machine. */
struct kvm_space {
    struct kvm_space *next;
    const void *key;        /* whose it is: cpu.space */
    int vm;
    uint8_t *trampoline;
    unsigned vcpus;         /* made so far */
    unsigned users;         /* of these, not yet freed */
    uint64_t flushes;       /* how many times all its translations were dropped */
    uint64_t noted, done;   /* repairs so far; further apart than MAX_REPAIRS: drop everything */
    uint64_t repairs[MAX_REPAIRS]; /* the last ones noted: number n is at n % MAX_REPAIRS */
};

/* One vcpu: cpu.engine_state. */
struct kvm_state {
    struct kvm_space *space;
    struct kvm_machine *machine;
    int fd;
    unsigned index;
    struct kvm_run *run;
    size_t run_bytes;
    uint8_t *page;           /* its task state segment and stack */
    uint8_t *program;        /* the page behind it */
    struct queue *queue;     /* the guest's kernel could fill it since the last entry; else NULL */
    int returning;           /* and could go back to its process by itself */
    uint64_t flushes_seen, flushes_next;
    uint64_t fault_rip, fault_address; /* of the last page fault that the tables do not explain, */
    unsigned fault_tries;    /* and how often it came */
    uint64_t repairs_next;   /* space->done after the entry in progress */
    struct kvm_sregs sregs;  /* what never changes */
    uint64_t breakpoints[5]; /* DR0 to DR3 and DR7 as they are loaded; DR7 is 0 when nothing is enabled */
};

/* One machine: what all its engines share. */
struct kvm_machine {
    int fd;
    uint8_t *memory;
    uint64_t memory_bytes;
    uint64_t trampoline_base; /* machine address of the trampoline's pages */
    int run_bytes;
    struct kvm_findings findings;
    struct kvm_space *spaces;
    struct kvm_engine *engines;
    pthread_mutex_t lock;     /* leaf lock, for these lists and what spaces note */
    pthread_mutex_t dropping; /* held, out of guest code, by who drops everything of a space; before `lock` */
    struct kvm_cpuid_leaf cpuid[MAX_CPUID_LEAVES];
    unsigned nr_cpuid;
    uint64_t memslot_resets;
};

/* One physical CPU. */
struct kvm_engine {
    struct kvm_machine *machine;
    struct kvm_engine *next;
    pthread_t thread;
    volatile int on_thread;
    volatile int kicked;
    int in_guest;           /* guest code may be running */
    int held;               /* how many want it out */
    struct kvm_run *volatile entered; /* where a kick has to set immediate_exit: a vcpu's record, */
    pthread_mutex_t leaving; /* which does not go while this is held: others may write to it, and signal the thread */
    struct deadline deadline;
    uint64_t entries, repaired, interrupted;
    uint64_t inside_ticks; /* of the time-stamp counter, that KVM_RUN took */
};

/* Open /dev/kvm for a machine; on failure NULL, and a sentence in error[]. */
struct kvm_machine *kvm_machine_open(void *memory, uint64_t size, const struct kvm_findings *findings, char *error,
                                     size_t error_size);
void kvm_machine_close(struct kvm_machine *machine);
/* At most MAX_CPUID_LEAVES of them. */
void kvm_machine_cpuid(struct kvm_machine *machine, const struct kvm_cpuid_leaf *leaves, unsigned count);

struct kvm_engine *kvm_engine_open(struct kvm_machine *machine);
void kvm_engine_close(struct kvm_engine *engine);

/* A vcpu for the holder of `key`, in that holder's virtual machine; NULL and errno when KVM refuses. */
struct kvm_state *kvm_state_open(struct kvm_machine *machine, const void *key);
void kvm_state_close(struct kvm_state *state);

/* As KVM showed them at the last exit, for the self-test: the selector in DS, and RIP. */
uint16_t kvm_state_data_selector(const struct kvm_state *state);
uint64_t kvm_state_rip(const struct kvm_state *state);

extern const struct cpu_ops kvm_ops;

#endif
