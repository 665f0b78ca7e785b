/* Page tables, which the host translates in hardware or keeps shadows of.
 *
 * Where it translates, a store into a live table is a store, and a flush a reload of CR3.  Where it keeps shadow tables,
 * it learns of changes only from the guest's own writes: so each changed entry that was present is noted, and before
 * guest code runs again ring 0 makes, through its linear map, the write that changes nothing.  A frame that becomes a
 * page table, or stops being one, is noted whole, by a write at its offset 1.
 *
 * A host that emulates ring 0 sees each write, and answers by dropping what it derived from the entry, or, at offset 1,
 * from the table.  There each instruction is dear (0.3 to 2 us): so what is to be done is no list for a loop, but a
 * program that is written for each entry.  Where ring 0 runs natively (reload_repairs), that is so for tables above L1.
 * The first write to an L1 table only makes the host let the others through, and remember that its shadow may be out of
 * date: it is compared with the table, whole, when a CR3 that leads to it is loaded, or when an entry is made to lead
 * to it again.  So there, a flush is a reload of CR3, too.  That it is of the vcpu whose entry makes the repair does not
 * matter: the vcpus of a domain have their shadows in common, and a flush is for each of them.
 *
 * A change that takes something away is complete when the flush that follows it returns: by then no guest code that
 * could use the old entry runs, and what was noted is done before any does.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "run.h"

#include <string.h>
#include <sys/ioctl.h>

#define ADDRESS 0x000ffffffffff000ull
#define ENTRIES 512u
#define NO_EXECUTE (1ull << 63)

static void note_repair(struct kvm_engine *e, uint64_t linear)
{
    struct kvm_space *space;

    pthread_mutex_lock(&e->machine->lock);
    /* It may be any domain's table, and a frame that was one domain's can be another's now. */
    for (space = e->machine->spaces; space != NULL; space = space->next)
        space->repairs[space->noted++ % MAX_REPAIRS] = linear;
    pthread_mutex_unlock(&e->machine->lock);
}

int kvm_store_pte(void *engine, uint64_t *pte, uint64_t old, uint64_t value)
{
    struct kvm_engine *e = engine;

    if (!__atomic_compare_exchange_n(pte, &old, value, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
        return 0;
    if (e->machine->findings.shadow_tables && old & 1 && old != value)
        note_repair(e, LINEAR_BASE + (uint64_t)((uint8_t *)pte - e->machine->memory));
    return 1;
}

void kvm_release_table(void *engine, uint64_t mfn)
{
    struct kvm_engine *e = engine;

    if (e->machine->findings.shortcuts)
        kvm_forget_table(e->machine, mfn);
    if (e->machine->findings.shadow_tables)
        note_repair(e, LINEAR_BASE + (mfn << 12) + 1);
}

void kvm_flush_tlb(void *engine, int scope)
{
    struct kvm_engine *e = engine;
    struct kvm_space *space;

    (void)scope;
    pthread_mutex_lock(&e->machine->lock);
    for (space = e->machine->spaces; space != NULL; space = space->next)
        space->flushes++;
    pthread_mutex_unlock(&e->machine->lock);
    kvm_hold(e);
    kvm_unhold(e);
}

void kvm_flush_page(void *engine, uint64_t address)
{
    (void)address;
    kvm_flush_tlb(engine, FLUSH_ALL);
}

/* With the lock held: whether more was noted than fits. */
static int must_drop(const struct kvm_space *space)
{
    return space->noted - space->done > MAX_REPAIRS;
}

/* All shadow tables go with the memory slot, which is made anew. */
static int remake_slot(struct kvm_state *s)
{
    struct kvm_machine *m = s->machine;
    struct kvm_userspace_memory_region region = {.slot = 0};
    uint64_t noted;

    pthread_mutex_lock(&m->lock);
    noted = s->space->noted;
    pthread_mutex_unlock(&m->lock);
    if (ioctl(s->space->vm, KVM_SET_USER_MEMORY_REGION, &region) != 0)
        return -1;
    region.memory_size = m->memory_bytes;
    region.userspace_addr = (uintptr_t)m->memory;
    if (ioctl(s->space->vm, KVM_SET_USER_MEMORY_REGION, &region) != 0)
        return -1;
    pthread_mutex_lock(&m->lock);
    s->space->done = noted;
    pthread_mutex_unlock(&m->lock);
    m->memslot_resets++;
    return 0;
}

int kvm_drop_everything(struct kvm_engine *e, struct kvm_state *s)
{
    struct kvm_machine *m = e->machine;
    struct kvm_engine *other;
    int rc = 0, must;

    pthread_mutex_lock(&m->dropping);
    pthread_mutex_lock(&m->lock);
    must = must_drop(s->space); /* unless another vcpu has done it */
    pthread_mutex_unlock(&m->lock);
    if (must) {
        /* While the memory is away no other vcpu of the domain may look for it. */
        for (other = m->engines; other != NULL; other = other->next)
            if (other != e)
                kvm_hold(other);
        rc = remake_slot(s);
        for (other = m->engines; other != NULL; other = other->next)
            if (other != e)
                kvm_unhold(other);
    }
    pthread_mutex_unlock(&m->dropping);
    return rc;
}

uint64_t kvm_repair_program(const struct kvm_state *s)
{
    return trampoline_address(PAGE_VCPUS + PAGES_PER_VCPU * s->index + 1);
}

static uint8_t *add_code(uint8_t *at, const char *code, size_t bytes)
{
    memcpy(at, code, bytes);
    return at + bytes;
}

static uint8_t *add_load_rax(uint8_t *at, uint64_t value)
{
    at = add_code(at, "\x48\xb8", 2);
    memcpy(at, &value, sizeof(value));
    return at + sizeof(value);
}

/* The longest program: so many writes of 15 bytes, and an end of 25. */
_Static_assert(MAX_REPAIRS * 15 + 25 <= DEPARTURE_PROGRAM, "it ends before the other one in its page");

/* One of the program's writes. */
static uint8_t *add_repair(uint8_t *at, uint64_t repair)
{
    at = add_load_rax(at, repair);
    return repair & 1 ? add_code(at, "\xf0\x80\x08\x00", 4)      /* lock orb $0, (%rax) */
                      : add_code(at, "\xf0\x48\x83\x08\x00", 5); /* lock orq $0, (%rax) */
}

/* Its end: a reload of CR3, and an iretq by the frame on the stack, with rax as the guest has it.  CR3 is not read for
 * it: an emulated processor (QEMU's) shows the one of the host's shadow tables, whatever the host asks it to stop at. */
static void end_program(uint8_t *at, int flush, const struct kvm_state *s)
{
    if (flush)
        at = add_code(add_load_rax(at, s->run->s.regs.sregs.cr3), "\x0f\x22\xd8", 3); /* mov %rax, %cr3 */
    at = add_load_rax(at, s->run->s.regs.regs.rax);
    (void)add_code(at, "\x48\xcf", 2);
}

static int reloads_to_flush(const struct kvm_machine *m)
{
    return !m->findings.shadow_tables || m->findings.reload_repairs;
}

/* Before guest code runs: everything noted goes into the vcpu's program, and the entry leads over that.  Several vcpus
 * of a domain may make the same repairs: none enters before those are done that it must have seen. */
int kvm_prepare_repairs(struct kvm_engine *e, struct kvm_state *s)
{
    struct kvm_space *space = s->space;
    int flush = reloads_to_flush(e->machine) && s->flushes_seen != space->flushes;
    uint8_t *at = s->program;
    uint64_t number;

    pthread_mutex_lock(&e->machine->lock);
    if (must_drop(space)) {
        pthread_mutex_unlock(&e->machine->lock);
        return -1;
    }
    for (number = space->done; number != space->noted; number++)
        at = add_repair(at, space->repairs[number % MAX_REPAIRS]);
    s->repairs_next = space->noted;
    s->flushes_next = space->flushes;
    pthread_mutex_unlock(&e->machine->lock);
    if (at == s->program && !flush)
        return 0;
    end_program(at, flush, s);
    kvm_load_repair(s);
    return 1;
}

void kvm_repairs_made(struct kvm_engine *e, struct kvm_state *s)
{
    struct kvm_space *space = s->space;

    /* Others may have noted more meanwhile, or made more. */
    pthread_mutex_lock(&e->machine->lock);
    if (space->done < s->repairs_next) {
        e->repaired += s->repairs_next - space->done;
        space->done = s->repairs_next;
    }
    pthread_mutex_unlock(&e->machine->lock);
    s->flushes_seen = s->flushes_next;
}

int kvm_walk(const struct kvm_machine *m, const struct cpu *cpu, uint64_t address, uint64_t *physical,
             uint32_t *refused)
{
    uint64_t table = (cpu->user ? cpu->user_cr3 : cpu->kernel_cr3) & ADDRESS;
    int shift;

    *refused = 0;
    for (shift = 39; shift >= 12; shift -= 9) {
        uint64_t entry;
        if (table + PAGE > m->memory_bytes)
            return 0;
        entry = __atomic_load_n((const uint64_t *)(m->memory + table) + (address >> shift & (ENTRIES - 1)),
                                __ATOMIC_RELAXED);
        if (!(entry & 1) || (shift > 12 && shift < 39 && entry & 0x80))
            return 0;
        *refused |= (uint32_t)(~entry & (PF_WRITE | PF_USER)) | (entry & NO_EXECUTE ? PF_FETCH : 0);
        table = entry & ADDRESS;
    }
    *physical = table | (address & (PAGE - 1));
    return table + PAGE <= m->memory_bytes;
}
