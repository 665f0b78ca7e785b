/* Page by page, where an engine of ours may keep pages of its own: nothing there is a guest's to read, write or run. */
#include "attack.h"

const char guest_name[] = "ring0_pages";

#define SMALL 176
#define PLACES (SMALL + 16)
#define STUBS (slot_start(258) + 3 * PAGE_SIZE)
#define LARGE (2UL << 20)
/* Where an engine of ours may have a queue of the kernel's updates of page tables (src/paravirt/machine/kvm/trampoline.h),
 * and what is where in it. */
#define QUEUE (slot_start(258) + 12 * PAGE_SIZE)
#define QUEUE_NEXT (QUEUE + 24)
#define QUEUE_SHORTCUTS (QUEUE + 32)
#define QUEUE_TABLES (QUEUE + 64)
#define QUEUE_ENTRIES (QUEUE + 656)
#define QUEUE_LENGTH 215
#define UPDATES_UNTIL_TRUSTED 1100

USER_ASM(u_read, "movq (%rdi), %rax; int3");
USER_ASM(u_write, "lock orq $0, (%rdi); int3");
USER_ASM(u_call, "jmp *%rdi");
/* With the registers of an mmu_update of the entry that rbx names, written down first; rdi is no operand then. */
#define UPDATE                                                                                                         \
    "movl $0x500000, %edi; movq %rbx, (%rdi); movq %r12, 8(%rdi); movl $1, %eax; movl $1, %esi; xorl %edx, %edx; "      \
    "movl $0x7ff0, %r10d; leaq 1f(%rip), %rcx; movl $0x202, %r11d; "
USER_ASM(u_update, UPDATE "syscall; 1: int3");
USER_ASM(u_jump, UPDATE "jmp *%r13; 1: int3");
USER_ASM(u_out, "outb %al, $0x10; int3");
USER_ASM(u_out_word, "outw %ax, $0xf; int3");
USER_ASM(u_in, "inb $0x10, %al; int3");

static u64 slot_start(int slot)
{
    return (u64)slot << 39 | 0xffff000000000000UL;
}

static int user(const char *code, u64 size, u64 va)
{
    struct regs r;
    user_frame(&r);
    r.rdi = va;
    return run_user(code, size, &r);
}

#define USER(code, va) user(code, (u64)(code##_end - code), va)

/* The first pages of a slot, one by one, and then the beginnings of large ones. */
static u64 place(int slot, int number)
{
    return slot_start(slot) + (number < SMALL ? (u64)number * PAGE_SIZE : (u64)(number - SMALL + 1) * LARGE);
}

static u64 stack_pointer(void)
{
    u64 value;
    asm volatile("movq %%rsp, %0" : "=r"(value));
    return value;
}

static void by_the_kernel(int slot)
{
    u64 value;
    int reads = 0, writes = 0, calls = 0, own = 0;
    for (int i = 0; i < PLACES; i++) {
        u64 va = place(slot, i);
        TRY("movq (%1), %0", : "=&r"(value) : "r"(va));
        reads += fault.vector == 14 && fault.cr2 == va;
        TRY("lock orq $0, (%0)", ::"r"(va) : "memory");
        writes += fault.vector == 14 && fault.cr2 == va;
        own += fault.vector < 0 && va == QUEUE;
        TRY_THEN("call *%0", "movq %1, %%rsp\n\t", ::"r"(va), "r"(stack_pointer()) : "memory");
        calls += fault.vector == 14 && fault.cr2 == va;
    }
    printf("  slot %d, kernel: of %d places %d reads, %d writes and %d calls fault\n", slot, PLACES, reads, writes, calls);
    stays("no write passed, but to a queue of the kernel's own", writes + own == PLACES);
}

static void by_user_mode(int slot)
{
    int reads = 0, writes = 0, calls = 0;
    for (int i = 0; i < PLACES; i++) {
        u64 va = place(slot, i);
        reads += USER(u_read, va) == 14 && user_exit_cr2 == va;
        writes += USER(u_write, va) == 14 && user_exit_cr2 == va;
        calls += USER(u_call, va) == 14 && user_exit_cr2 == va;
    }
    printf("  slot %d, user: of %d places %d reads, %d writes and %d calls fault\n", slot, PLACES, reads, writes, calls);
    stays("no write passed", writes == PLACES);
}

/* Where our engine's stubs are: each offset on its own.  What a stub does there must be nothing but a fault, or what
 * `syscall` does anyway. */
static void stubs(void)
{
    int page_faults = 0, faults = 0, hypercalls = 0, answers = 0, tried = 0;
    rule("no stub does anything for who jumps there");
    for (u64 at = 0; at < PAGE_SIZE; at += 16) {
        if (at == 0x210 || at == 0x220)
            continue; /* those of 32-bit code: it would go on as such, as after a far jump of its own */
        tried++;
        static u64 version, stub, stack;
        version = (u64)-1;
        stub = STUBS + at;
        /* What is between instructions may change any register. */
        TRY_THEN("pushq %%rbx\n\tpushq %%rbp\n\tpushq %%r12\n\tpushq %%r13\n\tpushq %%r14\n\tpushq %%r15\n\t"
                 "movq %%rsp, %1\n\tleaq 3f(%%rip), %%rcx\n\txorl %%edi, %%edi\n\txorl %%esi, %%esi\n\t"
                 "movl %3, %%eax\n\tjmp *%2\n3:",
                 "movq %1, %%rsp\n\tpopq %%r15\n\tpopq %%r14\n\tpopq %%r13\n\tpopq %%r12\n\tpopq %%rbp\n\t"
                 "popq %%rbx\n\tmovq %%rax, %0\n\t",
                 : "=m"(version), "=m"(stack) : "m"(stub), "i"(__HYPERVISOR_xen_version)
                 : "memory", "rax", "rcx", "rdx", "rdi", "rsi", "r8", "r9", "r10", "r11");
        page_faults += fault.vector == 14 && fault.cr2 == STUBS + at;
        faults += fault.vector >= 0;
        hypercalls += fault.vector < 0 && version >> 16 == 4;
        answers += fault.vector < 0 && (version == 0 || version == (u64)-ENOENT);
    }
    printf("  of %d jumps %d are page faults there, %d others fault, %d were hypercalls, %d were answered there\n", tried,
           page_faults, faults - page_faults, hypercalls, answers);
    stays("each was one of these", faults + hypercalls + answers == tried);
}

static char target[PAGE_SIZE] __attribute__((aligned(4096)));

/* A process asks for an update of one of our page tables, by `syscall` and by each way into the stubs. */
static void updates_by_user_mode(void)
{
    u64 *entry = pte_of((u64)target), old = *entry;
    int page_faults = 0, faults = 0, calls = 0, tried = 0, changes = 0;
    struct regs r;
    rule("a process has no updates of page tables");
    for (u64 at = 0; at <= PAGE_SIZE; at += 8) {
        if (at >> 4 == 0x21 || at >> 4 == 0x22)
            continue;
        int direct = at == PAGE_SIZE, vector;
        user_frame(&r);
        r.rbx = machine_of(entry);
        r.r12 = old ^ PTE_RW;
        r.r13 = STUBS + at;
        vector = direct ? run_user(u_update, (u64)(u_update_end - u_update), &r)
                        : run_user(u_jump, (u64)(u_jump_end - u_jump), &r);
        tried++;
        page_faults += vector == 14 && user_exit_cr2 == STUBS + at;
        faults += vector < 32;
        calls += vector >= 0x100;
        changes += *entry != old;
    }
    printf("  of %d ways %d are page faults there, %d others fault, %d were system calls\n", tried, page_faults,
           faults - page_faults, calls);
    stays("each was one of these", faults + calls == tried);
    stays("the entry is as it was", changes == 0 && *entry == old);
}

static int put(u64 va, u64 value)
{
    return TRY("movq %1, (%0)", ::"r"(va), "r"(value) : "memory");
}

static void put_entry(int number, u64 address, u64 value)
{
    put(QUEUE_ENTRIES + 16 * (u64)number, address);
    put(QUEUE_ENTRIES + 16 * (u64)number + 8, value);
}

/* Updates may be queued from here to the next exit. */
static void serve_a_fault(void)
{
    check(USER(u_read, 0) == 14);
}

/* Hand over the queue as if it ended there: any hypercall. */
static void hand_over(u64 end)
{
    serve_a_fault();
    put(QUEUE_NEXT, end);
    check(xen_sched_op(SCHEDOP_yield, 0) == 0);
}

static void nonsense_in_the_queue(void)
{
    u64 *entry = pte_of((u64)target), old = *entry, shortcuts = 0, frame = mfn_of(target) << 12;
    u64 *entry2 = entry_of((u64)target, 2), old2 = *entry2, *entry4 = (u64 *)kernel_l4 + 1, old4 = *entry4;
    u64 *own_table = (u64 *)((u64)entry & PAGE_MASK), number = m2p[mfn_of(target)];
    s64 result = 0;
    rule("what a kernel writes where its updates may be queued is worth no more than a hypercall");
    for (int i = 0; i < UPDATES_UNTIL_TRUSTED && result == 0; i++)
        result = set_entry(entry, old ^ (i & 1 ? 0 : 0x200));
    twin("many updates, one by one", result);
    twin("and back", set_entry(entry, old));
    serve_a_fault();
    TRY("movq (%1), %0", : "=&r"(shortcuts) : "r"(QUEUE_SHORTCUTS));
    printf("  updates may be queued: %s\n", fault.vector < 0 && shortcuts & 2 ? "yes" : "no");

    /* Ends that are none: whatever the entries are, they are not read. */
    for (int i = 0; i < QUEUE_LENGTH; i++)
        put_entry(i, machine_of(entry), old ^ 0x200);
    const u64 ends[] = {
        0, 1UL << 32, 1UL << 47, 1UL << 63, ~0UL, QUEUE_ENTRIES - 16, QUEUE_ENTRIES - 1, QUEUE_ENTRIES + 15,
        QUEUE_ENTRIES + 16 * (QUEUE_LENGTH + 1), QUEUE + 2 * PAGE_SIZE,
    };
    for (u64 i = 0; i < ARRAY_SIZE(ends); i++)
        hand_over(ends[i]);
    stays("with an end that is none, nothing is carried out", *entry == old);

    /* Tables that the hypervisor did not name, in its list of those that it did. */
    for (u64 i = 0; i < 64; i++)
        put(QUEUE_TABLES + 8 * i, mfn_of((void *)kernel_l4) / 64 * 64 + i);
    /* And entries, all that there is room for, of which none is a good one. */
    struct {
        u64 address, value;
    } bad[] = {
        {machine_of(entry), (mfn_of(own_table) << 12) | PTE_P | PTE_RW},        /* a page table, writable */
        {machine_of(entry), (mfn_of((void *)kernel_l4) << 12) | PTE_P | PTE_RW},
        {machine_of(entry), PTE_P | PTE_RW},                                     /* frame 0 */
        {machine_of(entry), 0xffffff000UL | PTE_P | PTE_RW},                     /* beyond memory */
        {machine_of(entry), 0xfffffffff000UL | PTE_P | PTE_RW},
        {machine_of(entry) | 1, 0x1234567},                                      /* machine-to-phys: of a table */
        {frame | 1, 0x1234567},                                                  /* and of a page */
        {machine_of(entry) | 3, 0}, {machine_of(entry) | 4, 0}, {machine_of(entry) | 7, 0},
        {machine_of(entry2), 0}, {machine_of(entry2), frame | PTE_P | PTE_RW | PTE_US},
        {machine_of(entry4), mfn_of((void *)kernel_l4) << 12 | PTE_P | PTE_US | PTE_A},
        {machine_of((u64 *)kernel_l4 + 258), 0}, {machine_of((u64 *)kernel_l4 + 300), 0},
        {frame, 0x1122334455667788}, {0, ~0UL}, {~7UL, ~0UL}, {1UL << 52, 0}, {0xfffffffff000UL, 0}, {1UL << 63, 0},
    };
    for (u64 i = 0; i < QUEUE_LENGTH; i++)
        put_entry((int)i, bad[i % ARRAY_SIZE(bad)].address, bad[i % ARRAY_SIZE(bad)].value);
    hand_over(QUEUE_ENTRIES + 16 * QUEUE_LENGTH);
    serve_a_fault();
    TRY("movq (%1), %0", : "=&r"(shortcuts) : "r"(QUEUE_SHORTCUTS));
    stays("a kernel that was refused has no queue any more", fault.vector >= 0 || !(shortcuts & 2));
    stays("no table has changed", *entry == old && *entry2 == old2 && *entry4 == old4);
    stays("nor a page", *(u64 *)target == 0);
    stays("nor the machine-to-phys table", m2p[mfn_of(target)] == number);
    attack("afterwards: a page table, writable", set_entry(entry, (mfn_of(own_table) << 12) | PTE_P | PTE_RW), -EBUSY);
    twin("and the page, read-only", set_entry(entry, old & ~(u64)PTE_RW));
    stays("it is at once", !(*entry & PTE_RW));
    twin("and back", set_entry(entry, old));
}

static void take_event(struct regs *r)
{
    (void)r;
    vcpu0->evtchn_upcall_pending = 0;
    vcpu0->evtchn_pending_sel = 0;
}

/* A table that the kernel runs on, and then its process: an event ends the first iret there before the process runs, and
 * its handler returns to where the process was left. */
static void on_a_table_that_was_the_kernels(void)
{
    char *page = page_alloc();
    struct vcpu_register_vcpu_info info = {mfn_of(page), 0, 0};
    u64 *table = root_copy(kernel_l4);
    struct regs r;
    rule("a table that was the kernel's shows a process nothing of it: #PF");
    twin("pin it", pin(4, table));
    twin("run on it", mmuext(MMUEXT_NEW_BASEPTR, mfn_of(table), 0));
    twin("and not any more", mmuext(MMUEXT_NEW_BASEPTR, mfn_of((void *)kernel_l4), 0));
    twin("let processes run on it", mmuext(MMUEXT_NEW_USER_BASEPTR, mfn_of(table), 0));
    twin("move the vcpu_info", xen_vcpu_op(VCPUOP_register_vcpu_info, 0, &info));
    vcpu0 = (struct vcpu_info *)page;
    vcpu0->evtchn_upcall_pending = 0;
    vcpu0->evtchn_pending_sel = 0;
    check(USER(u_read, 0) == 14);
    for (int i = 0; i < 2; i++) {
        const char *code = i == 0 ? u_read : u_write;
        check(mmuext(MMUEXT_NEW_USER_BASEPTR, mfn_of((void *)user_l4), 0) == 0);
        check(mmuext(MMUEXT_NEW_BASEPTR, mfn_of(table), 0) == 0);
        check(mmuext(MMUEXT_NEW_BASEPTR, mfn_of((void *)kernel_l4), 0) == 0);
        check(mmuext(MMUEXT_NEW_USER_BASEPTR, mfn_of(table), 0) == 0);
        handlers[VEC_EVENT] = take_event;
        vcpu0->evtchn_upcall_pending = 1;
        user_frame(&r);
        r.rdi = QUEUE;
        int vector = run_user(code, (u64)((i == 0 ? u_read_end : u_write_end) - code), &r);
        stays("the event was taken", !vcpu0->evtchn_upcall_pending);
        attack(i == 0 ? "a read of the queue" : "a write to it", vector, 14);
    }
    handlers[VEC_EVENT] = 0;
    twin("and as before", mmuext(MMUEXT_NEW_USER_BASEPTR, mfn_of((void *)user_l4), 0));
}

static void ports(void)
{
    rule("no port is a process's: #GP");
    twin_is("no port at all", USER(u_read, USER_DATA), 3);
    attack("outb", USER(u_out, 0), 13);
    attack("outw to the port before", USER(u_out_word, 0), 13);
    attack("inb", USER(u_in, 0), 13);
}

/* To that port in every way there is: `before` bytes of other code come first.  Each stops where it is, with nothing
 * done: no register has changed, and no memory. */
static void port_forms(void)
{
    static const struct {
        const char *name;
        u8 before;
        char code[8];
    } forms[] = {
        {"out %al, $0x10", 0, "\xe6\x10\xcc"},
        {"out %al, (%dx)", 0, "\xee\xcc"},
        {"out %al, (%dx), behind a byte that begins the other", 2, "\xb0\xe6\xee\xcc"},
        {"out %al, (%dx) with a prefix", 0, "\x66\xee\xcc"},
        {"out %al, (%dx) with two", 0, "\x66\xf3\xee\xcc"},
        {"out %al, $0x10 with two", 0, "\x66\x48\xe6\x10\xcc"},
        {"outsb", 0, "\x6e\xcc"},
        {"rep outsb", 0, "\xf3\x6e\xcc"},
        {"rep outsb, behind what looks like its prefix", 2, "\xb0\xf3\xf3\x6e\xcc"},
        {"in $0x10, %al", 0, "\xe4\x10\xcc"},
        {"in (%dx), %al", 0, "\xec\xcc"},
        {"in (%dx), %al with a prefix", 0, "\x66\xec\xcc"},
        {"insb", 0, "\x6c\xcc"},
        {"rep insb", 0, "\xf3\x6c\xcc"},
    };
    const u64 from = USER_DATA + 0x100, to = USER_DATA + 0x200, before = 0x1122334455667788;
    u64 *memory = (u64 *)to;
    rule("an instruction for a port that is closed does nothing at all, whatever its form");
    for (u64 i = 0; i < ARRAY_SIZE(forms); i++) {
        u64 value = forms[i].before ? (u8)forms[i].code[1] : 0x77;
        struct regs r;
        user_frame(&r);
        r.rax = value;
        r.rcx = 3;
        r.rdx = 0x10;
        r.rsi = from;
        r.rdi = to;
        *memory = before;
        int vector = run_user(forms[i].code, sizeof(forms[i].code), &r);
        int kept = user_exit.rip == USER_CODE + forms[i].before && user_exit.rax == value && user_exit.rcx == 3 &&
                   user_exit.rdx == 0x10 && user_exit.rsi == from && user_exit.rdi == to;
        check(vector == 13);
        printf("  %s: %s; rip and registers %s, memory %s\n", forms[i].name, vector_name(vector),
               kept ? "as before" : "changed", *memory == before ? "as before" : "changed");
    }
}

void guest_main(void)
{
    user_init();
    rule("page by page, slots 258 to 260 are closed: #PF");
    for (int slot = 258; slot <= 260; slot++) {
        by_the_kernel(slot);
        by_user_mode(slot);
    }
    stubs();
    ports();
    port_forms();
    updates_by_user_mode();
    nonsense_in_the_queue();
    on_a_table_that_was_the_kernels();
}
