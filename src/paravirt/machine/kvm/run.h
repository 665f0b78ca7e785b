/* What the parts of the inner loop share: see kvm.h for which part is where.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PARAVIRT_KVM_RUN_H
#define PARAVIRT_KVM_RUN_H

#include "kvm.h"

#define RFLAGS_ALWAYS 2ull
#define RFLAGS_TF 0x100ull
#define RFLAGS_DF 0x400ull
#define RFLAGS_RF 0x10000ull
#define PF_PRESENT 1u
#define PF_WRITE 2u
#define PF_USER 4u
#define PF_RESERVED 8u
#define PF_FETCH 16u
#define RFLAGS_GUEST 0x254fd5ull /* what of the flags is the guest's own */

/* kick.c */
void kvm_catch_kicks(void);
/* This thread is the engine's, and runs that vcpu until it ends: in between kicks reach it. */
void kvm_begin_vcpu(struct kvm_engine *e, struct kvm_state *s);
void kvm_end_vcpu(struct kvm_engine *e);
void kvm_kick(void *engine);
void kvm_set_deadline(void *engine, uint64_t deadline);
/* On the engine's thread: end KVM_RUN once more, should it not end by itself soon. */
void kvm_interrupt_again(struct kvm_engine *e);
/* Guest code is about to run; 0: it may not, somebody holds the engine. */
int kvm_enter_guest_code(struct kvm_engine *e);
void kvm_leave_guest_code(struct kvm_engine *e);
/* From any thread: see the engine out of guest code, and keep it out.  What is noted before is done before it is back. */
void kvm_hold(void *engine);
void kvm_unhold(void *engine);

/* registers.c */
void kvm_to_gpr(const struct kvm_regs *r, uint64_t *gpr);
void kvm_load_guest(struct kvm_state *s, struct cpu *cpu);
void kvm_load_repair(struct kvm_state *s);
void kvm_read_segments(const struct kvm_state *s, struct cpu *cpu);
/* CS and SS as the processor pushed them, where guest code has changed them without our help. */
void kvm_read_code_segment(const struct kvm_state *s, struct cpu *cpu, uint16_t cs, uint16_t ss);
/* What guest code runs in after a system call of that kind. */
void kvm_set_code_segment(struct cpu *cpu, int long_mode);
/* The status that goes with a debug exception: DR6's B0 to B3, BD, BS, BT. */
uint64_t kvm_debug_status(struct kvm_state *s, const struct cpu *cpu);
void kvm_get_fxsave(void *engine, struct cpu *cpu, uint8_t *image);
void kvm_set_fxsave(void *engine, struct cpu *cpu, const uint8_t *image);

/* pagetables.c */
int kvm_store_pte(void *engine, uint64_t *pte, uint64_t old, uint64_t value);
void kvm_release_table(void *engine, uint64_t mfn);
void kvm_flush_tlb(void *engine, int scope);
void kvm_flush_page(void *engine, uint64_t address);
/* Out of guest code: more was noted than fits, so that everything is dropped.  0, or -1: the host refuses. */
int kvm_drop_everything(struct kvm_engine *e, struct kvm_state *s);
/* 1: the entry leads over the stub that repairs; 0: nothing was to be done; -1: everything is to be dropped first. */
int kvm_prepare_repairs(struct kvm_engine *e, struct kvm_state *s);
/* Where ring 0 finds the program that makes them. */
uint64_t kvm_repair_program(const struct kvm_state *s);
void kvm_repairs_made(struct kvm_engine *e, struct kvm_state *s);
/* The frame and offset behind an address of the guest's, by its own tables; 0: none.  *refused: what of a page fault's
 * error code the tables do not allow there. */
int kvm_walk(const struct kvm_machine *m, const struct cpu *cpu, uint64_t address, uint64_t *physical,
             uint32_t *refused);

/* shortcuts.c */
/* Before an entry: the shortcuts are there for a guest's kernel that may take them, and for nobody else. */
void kvm_offer_shortcuts(struct kvm_engine *e, struct kvm_state *s, struct cpu *cpu);
void kvm_defer_table(void *engine, struct cpu *cpu, uint64_t mfn);
void kvm_forget_table(struct kvm_machine *m, uint64_t mfn);
/* After it: what was put off is the hypervisor's. */
void kvm_take_deferred(struct kvm_state *s, struct cpu *cpu);
/* The guest was left in the stub of `syscall`, at rip, and its segments were read: its registers become those of the kernel
 * that calls, behind the call.  Whether that was made; if it was iret, they are the process's. */
enum system_call_stage { NO_SYSTEM_CALL, SYSTEM_CALL_BEGUN, SYSTEM_CALL_DONE, SYSTEM_CALL_RETURNED };
enum system_call_stage kvm_leave_system_call(struct kvm_state *s, struct cpu *cpu, uint64_t rip);
/* The guest was left: if its kernel has gone back to its process, that is what was left.  Before registers are read. */
void kvm_note_return(struct kvm_state *s, struct cpu *cpu);
/* An exception is on its way, or ring 0 at work: should that be such a return, it is to end before the process runs, */
void kvm_stop_return(struct kvm_state *s);
/* by the stub of that name; then this is where the process goes on. */
void kvm_take_process(struct cpu *cpu);

/* exits.c */
/* This guest cannot go on: a static text, and a number for it. */
struct cpu_exit kvm_gives_up(const char *why, uint32_t number);
void kvm_take_failure(struct kvm_state *s, struct cpu *cpu, struct cpu_exit *exit);
/* Whether it was the stub behind that which repairs page tables, or another: no guest code ran. */
int kvm_has_only_repaired(const struct kvm_state *s);
int kvm_has_only_returned(const struct kvm_state *s);
/* 0: there is nothing for the hypervisor to do, and guest code goes on. */
void kvm_refuse_input(struct kvm_state *s, struct cpu *cpu, struct cpu_exit *exit);
int kvm_take_io(struct kvm_state *s, struct cpu *cpu, struct cpu_exit *exit);
void kvm_take_plain(struct kvm_state *s, struct cpu *cpu);

#endif
