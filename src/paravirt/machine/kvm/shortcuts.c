/* Hypercalls that do not end a run: their stub has the answer.
 *
 * Where `syscall` enters its stub in ring 3, the stub runs at full speed, and a call that it can answer costs a
 * twentieth of one that leaves the virtual machine.  So for a domain's only vcpu, as far as the hypervisor lets it
 * (cpu.shortcuts), the stub says itself that there are no other vcpus, and puts updates of single page-table entries
 * into a queue, with the answer that they nearly always get.  The queue is the hypervisor's at the next exit.  Updates
 * of L1 tables only: what a table of a higher level has, kernels read back at once.  And it takes down what the vcpu sets
 * its timer to, where the hypervisor will look before that is due (cpu.timer_from).
 *
 * The stub has no stack and no register of its own: rcx, rax and the flags are kept in the queue's page meanwhile.  It
 * can be left at any instruction.  Until the one that moves the queue's end, the call has not been made and can be made
 * anew; from then on it is done.
 *
 * Stub and queue are only in tables that nobody but the guest's kernel runs on.  What the kernel writes into the queue
 * by other ways are requests of the kernel's like any other.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "run.h"

#define ADDRESS 0x000ffffffffff000ull
#define NO_TABLE UINT64_MAX

static uint64_t first_entry(void)
{
    return trampoline_address(PAGE_QUEUE) + offsetof(struct queue, entries);
}

static struct queue *queue_in(const struct kvm_space *space)
{
    return (struct queue *)(space->trampoline + (size_t)PAGE_QUEUE * PAGE);
}

void kvm_offer_shortcuts(struct kvm_engine *e, struct kvm_state *s, struct cpu *cpu)
{
    const struct kvm_machine *m = e->machine;
    uint64_t table = cpu->user ? cpu->user_cr3 : cpu->kernel_cr3;
    uint64_t *entry = (uint64_t *)(m->memory + (table & ADDRESS)) + TRAMPOLINE_SLOT;
    int offered = !cpu->user && cpu->shortcuts && s->space->vcpus == 1 && cpu->kernel_cr3 != cpu->user_cr3;
    uint64_t wanted = trampoline_l4_entry(m->trampoline_base, offered), old;

    cpu->has_shortcuts = m->findings.shortcuts;
    if (!m->findings.shortcuts)
        return;
    for (old = *entry; (old ^ wanted) & ADDRESS; old = __atomic_load_n(entry, __ATOMIC_RELAXED))
        (void)kvm_store_pte(e, entry, old, wanted);
    if (offered && s->queue == NULL) {
        queue_in(s->space)->next = first_entry();
        queue_in(s->space)->timer_set = 0;
    }
    s->queue = offered ? queue_in(s->space) : NULL;
    if (offered) {
        s->queue->rcx = 0; /* who jumps into the midst of the stub makes no hypercall of before, but one that is none, */
        s->queue->rax = UINT64_MAX; /* and gets to address 0 */
        s->queue->timer_from = cpu->timer_from;
        s->queue->shortcuts = cpu->shortcuts;
    }
}

void kvm_defer_table(void *engine, struct cpu *cpu, uint64_t mfn)
{
    const struct kvm_state *s = cpu->engine_state;

    (void)engine;
    queue_in(s->space)->tables[mfn % QUEUE_TABLES] = mfn;
}

void kvm_forget_table(struct kvm_machine *m, uint64_t mfn)
{
    struct kvm_space *space;

    pthread_mutex_lock(&m->lock);
    for (space = m->spaces; space != NULL; space = space->next) {
        uint64_t *table = &queue_in(space)->tables[mfn % QUEUE_TABLES];
        if (*table == mfn)
            *table = NO_TABLE;
    }
    pthread_mutex_unlock(&m->lock);
}

void kvm_take_deferred(struct kvm_state *s, struct cpu *cpu)
{
    uint64_t filled, timer;

    cpu->nr_deferred = 0;
    cpu->timer_set = 0;
    if (s->queue == NULL)
        return;
    timer = __atomic_exchange_n(&s->queue->timer_set, 0, __ATOMIC_RELAXED);
    if (cpu->shortcuts & SHORTCUT_TIMER)
        cpu->timer_set = timer;
    filled = (__atomic_load_n(&s->queue->next, __ATOMIC_RELAXED) - first_entry()) / sizeof(s->queue->entries[0]);
    if (filled <= QUEUE_LENGTH && cpu->shortcuts & SHORTCUT_UPDATES) {
        cpu->nr_deferred = (uint32_t)filled;
        cpu->deferred = s->queue->entries[0];
    }
    s->queue->next = first_entry();
}

static int saves_registers(uint64_t offset)
{
    return offset >= STUB_SHORTCUTS && offset < STUB_SHORTCUTS_SAVED;
}

enum system_call_stage kvm_leave_system_call(const struct kvm_state *s, struct cpu *cpu, uint64_t rip)
{
    uint64_t offset = rip - trampoline_address(PAGE_STUBS);
    enum system_call_stage stage = SYSTEM_CALL_BEGUN;

    if (!s->machine->findings.user_stubs)
        return NO_SYSTEM_CALL;
    if (s->queue != NULL && offset >= STUB_SHORTCUTS_SAVED && offset < STUB_SHORTCUTS_END) {
        cpu->gpr[GPR_RCX] = s->queue->rcx;
        cpu->gpr[GPR_RAX] = s->queue->rax;
        if (offset >= STUB_SHORTCUTS_COMMITTED) {
            cpu->gpr[GPR_RAX] = 0;
            stage = SYSTEM_CALL_DONE;
        }
    } else if (offset - STUB_SYSCALL >= STUB_BYTES && (s->queue == NULL || !saves_registers(offset))) {
        return NO_SYSTEM_CALL;
    }
    cpu->rip = cpu->gpr[GPR_RCX];
    cpu->rflags = (cpu->gpr[GPR_R11] & RFLAGS_GUEST) | RFLAGS_ALWAYS;
    return stage;
}
