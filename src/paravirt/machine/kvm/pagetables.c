/* Page tables, which the host translates in hardware or keeps shadows of.
 *
 * Where it translates, a store into a live table is a store, and a flush a reload of CR3.  Where it keeps shadow tables,
 * it learns of changes only from the guest's own writes: so each changed entry that was present is noted, and before
 * guest code runs again ring 0 makes, through its linear map, the write that changes nothing (trampoline.c).  A frame
 * that becomes a page table, or stops being one, is noted whole.
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

static void note_repair(struct kvm_engine *e, uint64_t linear)
{
    struct kvm_space *space;

    pthread_mutex_lock(&e->machine->lock);
    /* It may be any domain's table, and a frame that was one domain's can be another's now. */
    for (space = e->machine->spaces; space != NULL; space = space->next) {
        if (space->nr_repairs < MAX_REPAIRS)
            space->repairs[space->nr_repairs] = linear;
        space->nr_repairs++;
    }
    pthread_mutex_unlock(&e->machine->lock);
}

void kvm_store_pte(void *engine, uint64_t *pte, uint64_t value)
{
    struct kvm_engine *e = engine;
    uint64_t old = __atomic_exchange_n(pte, value, __ATOMIC_SEQ_CST);

    if (e->machine->findings.shadow_tables && old & 1 && old != value)
        note_repair(e, LINEAR_BASE + (uint64_t)((uint8_t *)pte - e->machine->memory));
}

void kvm_release_table(void *engine, uint64_t mfn)
{
    struct kvm_engine *e = engine;

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
    kvm_see_out(e);
}

void kvm_flush_page(void *engine, uint64_t address)
{
    (void)address;
    kvm_flush_tlb(engine, FLUSH_ALL);
}

/* More than fits was noted: drop all shadow tables, by making the memory slot anew. */
static int drop_everything(struct kvm_state *s)
{
    struct kvm_machine *m = s->machine;
    struct kvm_userspace_memory_region region = {.slot = 0};

    m->memslot_resets++;
    if (ioctl(s->space->vm, KVM_SET_USER_MEMORY_REGION, &region) != 0)
        return -1;
    region.memory_size = m->memory_bytes;
    region.userspace_addr = (uintptr_t)m->memory;
    return ioctl(s->space->vm, KVM_SET_USER_MEMORY_REGION, &region);
}

/* Before guest code runs: everything noted goes into the vcpu's list, and the entry leads over the stub. */
int kvm_prepare_repairs(struct kvm_engine *e, struct kvm_state *s)
{
    struct kvm_space *space = s->space;
    int flush = !e->machine->findings.shadow_tables && s->flushes_seen != space->flushes;
    uint32_t count;

    pthread_mutex_lock(&e->machine->lock);
    count = space->nr_repairs;
    if (count > MAX_REPAIRS)
        space->nr_repairs = 0;
    else
        memcpy(s->repairs->address, space->repairs, count * sizeof(uint64_t));
    s->flushes_next = space->flushes;
    pthread_mutex_unlock(&e->machine->lock);
    if (count > MAX_REPAIRS) {
        if (drop_everything(s) != 0)
            return -1;
        count = 0;
    }
    if (count == 0 && !flush)
        return 0;
    s->repairs->count = s->nr_repairs = count;
    s->repairs->flush = (uint32_t)flush;
    kvm_load_repair(s);
    return 1;
}

void kvm_repairs_made(struct kvm_engine *e, struct kvm_state *s)
{
    struct kvm_space *space = s->space;

    /* Others may have noted more meanwhile. */
    pthread_mutex_lock(&e->machine->lock);
    if (space->nr_repairs <= MAX_REPAIRS) {
        space->nr_repairs -= s->nr_repairs;
        memmove(space->repairs, space->repairs + s->nr_repairs, space->nr_repairs * sizeof(uint64_t));
    }
    pthread_mutex_unlock(&e->machine->lock);
    e->repaired += s->nr_repairs;
    s->flushes_seen = s->flushes_next;
}

int kvm_walk(const struct kvm_machine *m, const struct cpu *cpu, uint64_t address, uint64_t *physical)
{
    uint64_t table = (cpu->user ? cpu->user_cr3 : cpu->kernel_cr3) & ADDRESS;
    int shift;

    for (shift = 39; shift >= 12; shift -= 9) {
        uint64_t entry;
        if (table + PAGE > m->memory_bytes)
            return 0;
        entry = __atomic_load_n((const uint64_t *)(m->memory + table) + (address >> shift & (ENTRIES - 1)),
                                __ATOMIC_RELAXED);
        if (!(entry & 1) || (shift > 12 && shift < 39 && entry & 0x80))
            return 0;
        table = entry & ADDRESS;
    }
    *physical = table | (address & (PAGE - 1));
    return table + PAGE <= m->memory_bytes;
}
