/* Virtual machines and their vcpus: see kvm.h.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#define _GNU_SOURCE
#include "kvm.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#define CR0_VALUE 0x80050033ull /* PE MP ET NE WP AM PG */
#define CR4_VALUE 0x620ull      /* PAE OSFXSR OSXMMEXCPT */
#define EFER_VALUE 0xd01ull     /* SCE LME LMA NXE */
#define MSR_TSC 0x10
#define MSR_SYSENTER_CS 0x174
#define MSR_SYSENTER_ESP 0x175
#define MSR_SYSENTER_EIP 0x176
#define MSR_STAR 0xc0000081
#define MSR_LSTAR 0xc0000082
#define MSR_CSTAR 0xc0000083
#define MSR_SFMASK 0xc0000084
#define SFMASK_VALUE 0x47700 /* TF IF DF IOPL NT AC */

static int require(int fd, int capability, const char *name, char *error, size_t error_size)
{
    if (ioctl(fd, KVM_CHECK_EXTENSION, capability) > 0)
        return 0;
    snprintf(error, error_size, "this kernel's KVM lacks the capability %s", name);
    return -1;
}

static int check_kvm(struct kvm_machine *m, char *error, size_t error_size)
{
    int version = ioctl(m->fd, KVM_GET_API_VERSION, 0);

    if (version != KVM_API_VERSION) {
        snprintf(error, error_size, "/dev/kvm speaks version %d of its interface, and only %d is known", version,
                 KVM_API_VERSION);
        return -1;
    }
    if (require(m->fd, KVM_CAP_USER_MEMORY, "USER_MEMORY", error, error_size) ||
        require(m->fd, KVM_CAP_SYNC_REGS, "SYNC_REGS", error, error_size) ||
        require(m->fd, KVM_CAP_IMMEDIATE_EXIT, "IMMEDIATE_EXIT", error, error_size) ||
        require(m->fd, KVM_CAP_EXT_CPUID, "EXT_CPUID", error, error_size) ||
        require(m->fd, KVM_CAP_VCPU_EVENTS, "VCPU_EVENTS", error, error_size))
        return -1;
    m->run_bytes = ioctl(m->fd, KVM_GET_VCPU_MMAP_SIZE, 0);
    if (m->run_bytes < (int)sizeof(struct kvm_run)) {
        snprintf(error, error_size, "/dev/kvm does not say how large a vcpu's record is");
        return -1;
    }
    return 0;
}

struct kvm_machine *kvm_machine_open(void *memory, uint64_t size, const struct kvm_findings *findings, char *error,
                                     size_t error_size)
{
    struct kvm_machine *m = calloc(1, sizeof(*m));

    if (m == NULL)
        return NULL;
    m->memory = memory;
    m->memory_bytes = size;
    m->trampoline_base = (size + (2u << 20) - 1) & ~(uint64_t)((2u << 20) - 1);
    m->findings = *findings;
    pthread_mutex_init(&m->lock, NULL);
    pthread_mutex_init(&m->dropping, NULL);
    m->fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (m->fd < 0) {
        snprintf(error, error_size, "/dev/kvm cannot be opened: %s", strerror(errno));
        kvm_machine_close(m);
        return NULL;
    }
    if (check_kvm(m, error, error_size) != 0) {
        kvm_machine_close(m);
        return NULL;
    }
    return m;
}

void kvm_machine_close(struct kvm_machine *m)
{
    if (m == NULL)
        return;
    if (m->fd >= 0)
        close(m->fd);
    pthread_mutex_destroy(&m->lock);
    pthread_mutex_destroy(&m->dropping);
    free(m);
}

void kvm_machine_cpuid(struct kvm_machine *m, const struct kvm_cpuid_leaf *leaves, unsigned count)
{
    m->nr_cpuid = count;
    memcpy(m->cpuid, leaves, m->nr_cpuid * sizeof(*leaves));
}

/* --- virtual machines ---------------------------------------------------------------------------------------- */

static void close_space(struct kvm_machine *m, struct kvm_space *space)
{
    if (space->vm >= 0)
        close(space->vm);
    if (space->trampoline != NULL)
        munmap(space->trampoline, trampoline_bytes(m->memory_bytes));
    free(space);
}

static int add_memory(int vm, uint32_t slot, uint64_t address, uint64_t size, void *host)
{
    struct kvm_userspace_memory_region region = {
        .slot = slot, .guest_phys_addr = address, .memory_size = size, .userspace_addr = (uintptr_t)host};
    return ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region);
}

static struct kvm_space *open_space(struct kvm_machine *m, const void *key)
{
    struct kvm_space *space = calloc(1, sizeof(*space));
    size_t bytes = trampoline_bytes(m->memory_bytes);
    void *region;

    if (space == NULL)
        return NULL;
    space->key = key;
    do
        space->vm = ioctl(m->fd, KVM_CREATE_VM, 0);
    while (space->vm < 0 && errno == EINTR);
    region = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (region != MAP_FAILED)
        space->trampoline = region;
    if (space->vm < 0 || space->trampoline == NULL || add_memory(space->vm, 0, 0, m->memory_bytes, m->memory) != 0 ||
        add_memory(space->vm, 1, m->trampoline_base, bytes, space->trampoline) != 0) {
        close_space(m, space);
        return NULL;
    }
    trampoline_build(space->trampoline, m->trampoline_base, m->memory_bytes, m->findings.user_stubs);
    space->next = m->spaces;
    m->spaces = space;
    return space;
}

static struct kvm_space *find_space(struct kvm_machine *m, const void *key)
{
    struct kvm_space *space;

    for (space = m->spaces; space != NULL; space = space->next)
        if (space->key == key)
            return space;
    return open_space(m, key);
}

static void leave_space(struct kvm_machine *m, struct kvm_space *space)
{
    struct kvm_space **link;

    if (--space->users != 0)
        return;
    for (link = &m->spaces; *link != space; link = &(*link)->next)
        ;
    *link = space->next;
    close_space(m, space);
}

/* --- vcpus --------------------------------------------------------------------------------------------------- */

static int set_cpuid(struct kvm_state *s)
{
    const struct kvm_machine *m = s->machine;
    struct kvm_cpuid2 *table = calloc(1, sizeof(*table) + MAX_CPUID_LEAVES * sizeof(table->entries[0]));
    unsigned i;
    int rc;

    if (table == NULL)
        return -1;
    table->nent = m->nr_cpuid;
    for (i = 0; i < m->nr_cpuid; i++) {
        struct kvm_cpuid_entry2 *entry = &table->entries[i];
        entry->function = m->cpuid[i].leaf;
        entry->index = m->cpuid[i].subleaf;
        entry->flags = m->cpuid[i].any_subleaf ? 0 : KVM_CPUID_FLAG_SIGNIFCANT_INDEX;
        entry->eax = m->cpuid[i].eax;
        entry->ebx = m->cpuid[i].ebx;
        entry->ecx = m->cpuid[i].ecx;
        entry->edx = m->cpuid[i].edx;
        if (entry->function == 1)
            entry->ebx |= (s->index * 2) << 24;
    }
    rc = ioctl(s->fd, KVM_SET_CPUID2, table);
    free(table);
    return rc;
}

static struct kvm_segment system_segment(uint64_t base, uint32_t limit, uint8_t type, uint16_t selector)
{
    struct kvm_segment segment = {
        .base = base, .limit = limit, .type = type, .selector = selector, .present = 1};
    return segment;
}

static int set_system_registers(struct kvm_state *s)
{
    uint64_t first = trampoline_address(PAGE_VCPUS + PAGES_PER_VCPU * s->index);

    if (ioctl(s->fd, KVM_GET_SREGS, &s->sregs) != 0)
        return -1;
    s->sregs.cr0 = CR0_VALUE;
    s->sregs.cr4 = CR4_VALUE;
    s->sregs.efer = EFER_VALUE;
    s->sregs.gdt.base = trampoline_address(PAGE_GDT);
    s->sregs.gdt.limit = 0xffff;
    s->sregs.idt.base = trampoline_address(PAGE_IDT);
    s->sregs.idt.limit = 32 * 16 - 1;
    s->sregs.tr = system_segment(first, TSS_LIMIT, 11, 0xe040);
    s->sregs.ldt = system_segment(0, 0, 2, 0);
    s->sregs.ldt.unusable = 1;
    s->sregs.ldt.present = 0;
    return 0;
}

static int set_entry_points(struct kvm_state *s)
{
    uint64_t stubs = trampoline_address(PAGE_STUBS);
    uint64_t stack = trampoline_address(PAGE_VCPUS + PAGES_PER_VCPU * s->index) + STACK_TOP;
    const struct kvm_msr_entry entries[] = {
        {MSR_STAR, 0, (uint64_t)SELECTOR_RING0_CODE << 32 | 0xe023ull << 48},
        {MSR_LSTAR, 0, stubs + STUB_SYSCALL},
        {MSR_CSTAR, 0, stubs + STUB_SYSCALL32},
        {MSR_SFMASK, 0, SFMASK_VALUE},
        {MSR_SYSENTER_CS, 0, SELECTOR_RING0_CODE},
        {MSR_SYSENTER_ESP, 0, stack},
        {MSR_SYSENTER_EIP, 0, stubs + STUB_SYSENTER},
        {MSR_TSC, 0, __builtin_ia32_rdtsc()},
    };
    struct {
        struct kvm_msrs head;
        struct kvm_msr_entry entries[8];
    } msrs;

    memset(&msrs.head, 0, sizeof(msrs.head));
    msrs.head.nmsrs = 8;
    memcpy(msrs.entries, entries, sizeof(entries));
    return ioctl(s->fd, KVM_SET_MSRS, &msrs) == 8 ? 0 : -1;
}

/* The guest's time-stamp counter is the host's. */
static void align_tsc(struct kvm_state *s)
{
    uint64_t offset = 0;
    struct kvm_device_attr attribute = {
        .group = KVM_VCPU_TSC_CTRL, .attr = KVM_VCPU_TSC_OFFSET, .addr = (uintptr_t)&offset};
    /* Where that is not offered, the value that was set with the other registers is near enough. */
    (void)ioctl(s->fd, KVM_SET_DEVICE_ATTR, &attribute);
}

static int open_vcpu(struct kvm_state *s)
{
    void *run;

    s->fd = ioctl(s->space->vm, KVM_CREATE_VCPU, s->index);
    if (s->fd < 0)
        return -1;
    s->run_bytes = (size_t)s->machine->run_bytes;
    run = mmap(NULL, s->run_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, s->fd, 0);
    if (run == MAP_FAILED)
        return -1;
    s->run = run;
    if (set_cpuid(s) != 0 || set_system_registers(s) != 0)
        return -1;
    trampoline_add_vcpu(s->space->trampoline, s->index, s->machine->findings.user_stubs);
    s->page = s->space->trampoline + (size_t)(PAGE_VCPUS + PAGES_PER_VCPU * s->index) * PAGE;
    s->program = s->page + PAGE;
    s->run->kvm_valid_regs = KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS | KVM_SYNC_X86_EVENTS;
    if (ioctl(s->fd, KVM_SET_SREGS, &s->sregs) != 0 || set_entry_points(s) != 0)
        return -1;
    align_tsc(s);
    return 0;
}

struct kvm_state *kvm_state_open(struct kvm_machine *m, const void *key)
{
    struct kvm_state *s = calloc(1, sizeof(*s));

    if (s == NULL)
        return NULL;
    s->machine = m;
    s->fd = -1;
    pthread_mutex_lock(&m->lock);
    s->space = find_space(m, key);
    if (s->space != NULL && s->space->vcpus < MAX_VCPUS_PER_SPACE) {
        s->index = s->space->vcpus++;
        s->space->users++;
    } else {
        free(s);
        s = NULL;
    }
    pthread_mutex_unlock(&m->lock);
    if (s != NULL && open_vcpu(s) != 0) {
        kvm_state_close(s);
        return NULL;
    }
    return s;
}

void kvm_state_close(struct kvm_state *s)
{
    struct kvm_machine *m = s->machine;

    if (s->run != NULL)
        munmap(s->run, s->run_bytes);
    if (s->fd >= 0)
        close(s->fd);
    pthread_mutex_lock(&m->lock);
    leave_space(m, s->space);
    pthread_mutex_unlock(&m->lock);
    free(s);
}

uint16_t kvm_state_data_selector(const struct kvm_state *s)
{
    return s->run->s.regs.sregs.ds.selector;
}

uint64_t kvm_state_rip(const struct kvm_state *s)
{
    return s->run->s.regs.regs.rip;
}
