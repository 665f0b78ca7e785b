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
 * An iret that leads to where the process was when its kernel was entered, with nothing but the stub's calls in between,
 * needs nothing of the hypervisor: its tables, segments and bases are what they were.  So the stub compares the frame,
 * lets events come, and ring 0, which it enters by an exception, loads CR3 and a frame of its own: whoever gets there by
 * other ways gets to the same place.  Once events may come the process runs, whatever interrupts the rest.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "run.h"

#include <string.h>

#define ADDRESS 0x000ffffffffff000ull
#define DATA_PAGE 0x8000000000000067ull /* present, writable, user's, accessed, dirty; no code */
#define NO_TABLE UINT64_MAX

static uint64_t first_entry(void)
{
    return trampoline_address(PAGE_QUEUE) + offsetof(struct queue, entries);
}

static struct queue *queue_in(const struct kvm_space *space)
{
    return (struct queue *)(space->trampoline + (size_t)PAGE_QUEUE * PAGE);
}

/* The stub sees the page of the vcpu_info; 0: it sees another one, as a vcpu_info moves once at most. */
static int shows_info(const struct kvm_space *space, uint64_t info)
{
    uint64_t *entry = (uint64_t *)(space->trampoline + (size_t)PAGE_KERNEL_L1 * PAGE) + PAGE_INFO;

    if (*entry == 0)
        *entry = (info & ADDRESS) | DATA_PAGE;
    return ((*entry ^ info) & ADDRESS) == 0;
}

/* Slot 258 of a table: with the shortcuts for the guest's kernel only. */
static void lead_to_stubs(struct kvm_engine *e, uint64_t table, int kernel)
{
    uint64_t *entry = (uint64_t *)(e->machine->memory + (table & ADDRESS)) + TRAMPOLINE_SLOT;
    uint64_t wanted = trampoline_l4_entry(e->machine->trampoline_base, kernel), old;

    for (old = *entry; (old ^ wanted) & ADDRESS; old = __atomic_load_n(entry, __ATOMIC_RELAXED))
        (void)kvm_store_pte(e, entry, old, wanted);
}

/* How ring 0 leaves for the process, and what the stub compares the frame of an iret with. */
static void offer_return(struct kvm_engine *e, struct kvm_state *s, const struct cpu *cpu)
{
    const struct cpu_process *p = &cpu->process;
    struct departure *departure = (struct departure *)(s->page + DEPARTURE_PLACE);
    uint8_t *stubs = s->space->trampoline + (size_t)PAGE_KERNEL_STUBS * PAGE;

    s->returning = s->machine->findings.returns && s->queue != NULL && s->index == 0 && cpu->user_cr3 != 0 &&
                   cpu->shortcuts & SHORTCUT_RETURN && shows_info(s->space, cpu->vcpu_info);
    trampoline_allow_departure(stubs, s->returning);
    if (!s->returning) {
        if (s->queue != NULL)
            s->queue->shortcuts &= ~(uint64_t)SHORTCUT_RETURN;
        return;
    }
    lead_to_stubs(e, cpu->user_cr3, 0); /* it may have been a kernel's until now, and no entry is to come */
    *departure = (struct departure){
        cpu->user_cr3, 0, {p->rip, 0xe033, (p->rflags & RFLAGS_GUEST) | RFLAGS_ALWAYS, p->rsp, 0xe02b}};
    memcpy(s->queue->process, (uint64_t[]){p->rip, p->cs.selector, p->rflags, p->rsp, p->ss.selector},
           sizeof(s->queue->process));
    s->queue->kernel_gs = cpu->seg[SEG_GS].base;
    s->queue->info = trampoline_address(PAGE_INFO) + (cpu->vcpu_info & (PAGE - 1));
}

void kvm_stop_return(struct kvm_state *s)
{
    struct departure *departure = (struct departure *)(s->page + DEPARTURE_PLACE);
    uint64_t stack = trampoline_address(PAGE_VCPUS + PAGES_PER_VCPU * s->index) + STACK_TOP;

    if (s->returning)
        memcpy(departure->frame,
               (uint64_t[]){trampoline_address(PAGE_STUBS) + STUB_RETURNED, SELECTOR_RING0_CODE, RFLAGS_ALWAYS, stack,
                            SELECTOR_RING0_DATA},
               sizeof(departure->frame));
}

static void go_back(struct kvm_state *s, struct cpu *cpu)
{
    s->returning = 0;
    cpu->returned = 1;
    cpu->user = 1;
    cpu->kernel_gs = cpu->seg[SEG_GS].base;
    cpu->seg[SEG_GS].base = 0;
    cpu->seg[SEG_CS] = cpu->process.cs;
    cpu->seg[SEG_SS] = cpu->process.ss;
}

void kvm_note_return(struct kvm_state *s, struct cpu *cpu)
{
    if (s->returning && s->run->s.regs.sregs.cr3 == cpu->user_cr3)
        go_back(s, cpu);
}

/* Where the process goes on; its other registers are there. */
void kvm_take_process(struct cpu *cpu)
{
    cpu->rip = cpu->process.rip;
    cpu->rflags = (cpu->process.rflags & RFLAGS_GUEST) | RFLAGS_ALWAYS;
    cpu->gpr[GPR_RSP] = cpu->process.rsp;
}

void kvm_offer_shortcuts(struct kvm_engine *e, struct kvm_state *s, struct cpu *cpu)
{
    int offered = !cpu->user && cpu->shortcuts && s->space->vcpus == 1 && cpu->kernel_cr3 != cpu->user_cr3;

    cpu->has_shortcuts = e->machine->findings.shortcuts;
    if (!cpu->has_shortcuts)
        return;
    lead_to_stubs(e, cpu->user ? cpu->user_cr3 : cpu->kernel_cr3, offered);
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
    offer_return(e, s, cpu);
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

enum system_call_stage kvm_leave_system_call(struct kvm_state *s, struct cpu *cpu, uint64_t rip)
{
    uint64_t offset = rip - trampoline_address(PAGE_STUBS);
    enum system_call_stage stage = SYSTEM_CALL_BEGUN;

    if (!s->machine->findings.user_stubs)
        return NO_SYSTEM_CALL;
    if (s->returning && offset >= STUB_RETURN_COMMITTED && offset < STUB_RETURN_UNDONE) {
        cpu->gpr[GPR_RAX] = s->queue->process_rax;
        cpu->gpr[GPR_RCX] = s->queue->process_rcx;
        cpu->gpr[GPR_R11] = s->queue->process_r11;
        go_back(s, cpu);
        kvm_take_process(cpu);
        return SYSTEM_CALL_RETURNED;
    }
    if (s->queue != NULL && !cpu->user && offset >= STUB_SHORTCUTS_SAVED && offset < STUB_SHORTCUTS_END) {
        cpu->gpr[GPR_RCX] = s->queue->rcx;
        cpu->gpr[GPR_RAX] = s->queue->rax;
        if (offset >= STUB_SHORTCUTS_COMMITTED && offset < STUB_RETURN) {
            cpu->gpr[GPR_RAX] = 0;
            stage = SYSTEM_CALL_DONE;
        }
    } else if (offset - STUB_SYSCALL >= STUB_BYTES && (s->queue == NULL || cpu->user || !saves_registers(offset))) {
        return NO_SYSTEM_CALL;
    }
    cpu->rip = cpu->gpr[GPR_RCX];
    cpu->rflags = (cpu->gpr[GPR_R11] & RFLAGS_GUEST) | RFLAGS_ALWAYS;
    return stage;
}
