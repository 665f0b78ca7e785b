/* Builds the trampoline's pages: see trampoline.h.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "trampoline.h"

#include <string.h>

#define PRESENT 1ull
#define WRITABLE 2ull
#define USER 4ull
#define ACCESSED_DIRTY 0x60ull
#define LARGE 0x80ull
#define JUMP 0xe9
#define NO_EXECUTE (1ull << 63)

#define STRINGIZE(x) #x
#define TEXT(x) STRINGIZE(x)
#define QUEUE(offset) "(kvm_stubs + " TEXT(QUEUE_DISTANCE) " + " #offset ")(%rip)"
#define DEPARTURE(offset) "(kvm_departure - " TEXT(DEPARTURE_DISTANCE) " + " #offset ")(%rip)"

/* The stubs.  They lie at fixed offsets, so that the host knows by rip which one stopped. */
__asm__(".pushsection .rodata\n"
        ".balign 16\n"
        "kvm_stubs:\n"
        ".rept 32\n"
        "    .balign 16\n"
        "    out %al, $" TEXT(STUB_PORT) "\n"
        "    ud2\n"
        ".endr\n"
        ".org kvm_stubs + 0x200\n"
        "    out %al, $" TEXT(STUB_PORT) "\n"
        "    ud2\n"
        ".org kvm_stubs + 0x208\n"
        "9:  out %al, $" TEXT(STUB_PORT) "\n"
        "    ud2\n"
        ".org kvm_stubs + 0x210\n"
        "    out %al, $" TEXT(STUB_PORT) "\n"
        "    ud2\n"
        ".org kvm_stubs + 0x220\n"
        "    out %al, $" TEXT(STUB_PORT) "\n"
        "    ud2\n"
        ".org kvm_stubs + 0x230\n"
        "    out %al, $" TEXT(STUB_PORT) "\n"
        "    ud2\n"
        ".org kvm_stubs + 0x240\n"
        "    out %al, $" TEXT(STUB_PORT) "\n"
        "    ud2\n"
        ".org kvm_stubs + 0x250\n"
        "    cmpl $0x80000000, 4(%rsp)\n" /* trampoline_allow_departure */
        "    je kvm_stubs + " TEXT(DEPARTURE_PROGRAM_DISTANCE) "\n"
        "    out %al, $" TEXT(STUB_PORT) "\n"
        "    hlt\n"
        ".org kvm_stubs + 0x400\n"
        "    mov %rcx, " QUEUE(0) "\n"
        "    mov %rax, " QUEUE(8) "\n"
        "    lahf\n"
        "    seto %al\n"
        "    mov %rax, " QUEUE(16) "\n"
        "    mov " QUEUE(8) ", %rax\n"
        "    test $0x44500, %r11d\n" /* AC, NT, DF, TF: with them it is not worth it */
        "    jnz 8f\n"
        "    cmp $1, %rax\n" /* mmu_update */
        "    je 7f\n"
        "    cmp $24, %rax\n" /* vcpu_op */
        "    jne 3f\n"
        "    cmp $8, %edi\n" /* VCPUOP_set_singleshot_timer */
        "    je 5f\n"
        "    .nops 3\n" /* a kernel that jumps into the midst of the rest shall find nothing that costs it its stack */
        "    testb $1, " QUEUE(32) "\n"
        "    jz 8f\n"
        "    cmp $3, %edi\n" /* VCPUOP_is_up */
        "    jne 8f\n"
        "    test %esi, %esi\n"
        "    jz 8f\n"
        "    mov " QUEUE(16) ", %rax\n"
        "    add $0x7f, %al\n"
        "    sahf\n"
        "    mov $-2, %rax\n" /* -ENOENT */
        "    mov " QUEUE(0) ", %rcx\n"
        "    jmp *%rcx\n"
        "8:  mov " QUEUE(8) ", %rax\n"
        "    mov " QUEUE(0) ", %rcx\n"
        "    jmp 9b\n"
        /* (rdi: the entry, rsi: 1, rdx: no count wanted, r10: DOMID_SELF) */
        "7:  testb $2, " QUEUE(32) "\n"
        "    jz 8b\n"
        "    cmp $1, %rsi\n"
        "    jne 8b\n"
        "    test %rdx, %rdx\n"
        "    jnz 8b\n"
        "    cmp $0x7ff0, %r10\n"
        "    jne 8b\n"
        "    mov %rdi, %rax\n" /* not in the hypervisor's part of addresses */
        "    shr $43, %rax\n"
        "    cmp $0x1ffff0, %eax\n"
        "    je 8b\n"
        "    mov (%rdi), %rax\n"
        "    test $5, %al\n" /* MMU_NORMAL_PT_UPDATE or MMU_PT_UPDATE_PRESERVE_AD */
        "    jnz 8b\n"
        "    shr $9, %eax\n" /* whether the table is one of those, at 8 * (frame % 64) */
        "    and $0x1f8, %eax\n"
        "    lea " QUEUE(64) ", %rcx\n"
        "    add %rcx, %rax\n"
        "    mov (%rdi), %rcx\n"
        "    shr $12, %rcx\n"
        "    cmp %rcx, (%rax)\n"
        "    jne 8b\n"
        "    mov " QUEUE(24) ", %rcx\n"
        "    mov (%rdi), %rax\n"
        "    mov %rax, (%rcx)\n" /* when the queue is full: a page fault */
        "    mov 8(%rdi), %rax\n"
        "    mov %rax, 8(%rcx)\n"
        "    add $16, %rcx\n"
        "    jmp 6f\n"
        /* (esi: the vcpu, rdx: the time and flags, which are 16 bytes) */
        "5:  testb $4, " QUEUE(32) "\n"
        "    jz 8b\n"
        "    test %esi, %esi\n"
        "    jnz 8b\n"
        "    mov %rdx, %rax\n"
        "    shr $43, %rax\n"
        "    cmp $0x1ffff0, %eax\n"
        "    je 8b\n"
        "    testb $0, 15(%rdx)\n"
        "    mov (%rdx), %rax\n"
        "    cmp " QUEUE(40) ", %rax\n"
        "    jl 8b\n"
        "    mov %rax, " QUEUE(48) "\n" /* who is left here makes the call anew, and sets the timer to the same */
        "    jmp 4f\n"
        ".org kvm_stubs + 0x540 - 7\n"
        "6:  mov %rcx, " QUEUE(24) "\n"
        "4:  mov " QUEUE(16) ", %rax\n"
        "    add $0x7f, %al\n"
        "    sahf\n"
        "    mov $0, %eax\n"
        "    mov " QUEUE(0) ", %rcx\n"
        "    jmp *%rcx\n"
        ".org kvm_stubs + 0x580\n"
        /* (rsp: rax, r11, rcx, flags, rip, cs, rflags, rsp, ss) */
        "3:  cmp $23, %rax\n" /* iret */
        "    jne 8b\n"
        "    testb $8, " QUEUE(32) "\n"
        "    jz 8b\n"
        "    mov %rsp, %rax\n"
        "    shr $43, %rax\n"
        "    cmp $0x1ffff0, %eax\n"
        "    je 8b\n"
        "    mov 32(%rsp), %rax\n"
        "    cmp %rax, " QUEUE(576) "\n"
        "    jne 8b\n"
        "    mov 40(%rsp), %ax\n"
        "    cmp %ax, " QUEUE(584) "\n"
        "    jne 8b\n"
        "    mov 48(%rsp), %rax\n"
        "    cmp %rax, " QUEUE(592) "\n"
        "    jne 8b\n"
        "    mov 56(%rsp), %rax\n"
        "    cmp %rax, " QUEUE(600) "\n"
        "    jne 8b\n"
        "    mov 64(%rsp), %ax\n"
        "    cmp %ax, " QUEUE(608) "\n"
        "    jne 8b\n"
        "    rdgsbase %rax\n" /* what a kernel loads into GS by itself, nobody else sees; a processor without this: #UD */
        "    cmp %rax, " QUEUE(640) "\n"
        "    jne 8b\n"
        "    testb $1, 25(%rsp)\n" /* VGCF_in_syscall: rcx and r11 are not the frame's */
        "    jnz 8b\n"
        "    lea " QUEUE(656) ", %rax\n" /* an update that was put off may be what the process waits for */
        "    cmp %rax, " QUEUE(24) "\n"
        "    jne 8b\n"
        "    mov (%rsp), %rax\n"
        "    mov %rax, " QUEUE(616) "\n"
        "    mov 8(%rsp), %rax\n"
        "    mov %rax, " QUEUE(624) "\n"
        "    mov 16(%rsp), %rax\n"
        "    mov %rax, " QUEUE(632) "\n"
        "    mov " QUEUE(56) ", %rax\n"
        "    jmp 2f\n"
        ".org kvm_stubs + 0x680 - 5\n"
        "2:  lock andb $0, 1(%rax)\n" /* evtchn_upcall_mask: whoever makes an event pending from now on kicks this vcpu */
        "    cmpb $0, (%rax)\n"       /* evtchn_upcall_pending */
        "    jne 1f\n"
        "    mov " QUEUE(632) ", %rcx\n"
        "    mov " QUEUE(624) ", %r11\n"
        "    mov " QUEUE(616) ", %rax\n"
        "    divb 4f(%rip)\n"
        "    hlt\n"
        ".org kvm_stubs + 0x6b0 - 4\n"
        "1:  movb $1, 1(%rax)\n"
        "    jmp 8b\n"
        "4:  .byte 0\n"
        ".org kvm_stubs + 0x6c0\n"
        "kvm_stubs_end:\n"
        /* Ring 0 leaves for a process. */
        "kvm_departure:\n"
        "    xchg %rax, " DEPARTURE(0) "\n"
        "    mov %rax, %cr3\n"
        "    movw " DEPARTURE(8) ", %gs\n"
        "    xchg %rax, " DEPARTURE(0) "\n" /* nothing of a process's is left where CR3 comes from */
        "    lea " DEPARTURE(16) ", %rsp\n"
        "    iretq\n"
        "kvm_departure_end:\n"
        ".popsection\n");
extern const uint8_t kvm_stubs[], kvm_stubs_end[], kvm_departure[], kvm_departure_end[];

_Static_assert(QUEUE_DISTANCE == (PAGE_QUEUE - PAGE_STUBS) * PAGE, "the stubs know where the queue is");
_Static_assert(DEPARTURE_PROGRAM_DISTANCE == (PAGE_VCPUS + 1 - PAGE_STUBS) * PAGE + DEPARTURE_PROGRAM, "and its program");
_Static_assert(DEPARTURE_DISTANCE == PAGE + DEPARTURE_PROGRAM - DEPARTURE_PLACE, "which knows where the rest is");
_Static_assert(offsetof(struct queue, process) == 576 && offsetof(struct queue, entries) == 656, "and what is in it");
_Static_assert(sizeof(struct queue) == PAGE, "the queue ends where its page does");

static uint64_t linear_tables(uint64_t memory_bytes)
{
    return (memory_bytes + (1ull << 30) - 1) >> 30;
}

size_t trampoline_bytes(uint64_t memory_bytes)
{
    return (TRAMPOLINE_PAGES + linear_tables(memory_bytes)) * PAGE;
}

static uint64_t *page(uint8_t *region, unsigned index)
{
    return (uint64_t *)(region + (size_t)index * PAGE);
}

static void build_mapping(uint8_t *region, uint64_t base, int user_stubs)
{
    uint64_t *l1 = page(region, PAGE_L1);
    unsigned i;

    page(region, PAGE_L3)[0] = (base + PAGE_L2 * PAGE) | PRESENT | WRITABLE | USER | ACCESSED_DIRTY;
    page(region, PAGE_L2)[0] = (base + PAGE_L1 * PAGE) | PRESENT | WRITABLE | USER | ACCESSED_DIRTY;
    l1[PAGE_STUBS] = (base + PAGE_STUBS * PAGE) | PRESENT | ACCESSED_DIRTY | (user_stubs ? USER : 0);
    l1[PAGE_IDT] = (base + PAGE_IDT * PAGE) | PRESENT | ACCESSED_DIRTY | NO_EXECUTE;
    for (i = 0; i < 16; i++)
        l1[PAGE_GDT + i] = (base + (i == 14 ? PAGE_DESCRIPTORS : PAGE_ZERO) * PAGE) | PRESENT | ACCESSED_DIRTY |
                           NO_EXECUTE;
    for (i = PAGE_VCPUS; i < TRAMPOLINE_PAGES; i += PAGES_PER_VCPU) {
        l1[i] = (base + i * PAGE) | PRESENT | WRITABLE | ACCESSED_DIRTY | NO_EXECUTE;
        l1[i + 1] = (base + (i + 1) * PAGE) | PRESENT | ACCESSED_DIRTY;
    }
    page(region, PAGE_KERNEL_L3)[0] = (base + PAGE_KERNEL_L2 * PAGE) | PRESENT | WRITABLE | USER | ACCESSED_DIRTY;
    page(region, PAGE_KERNEL_L2)[0] = (base + PAGE_KERNEL_L1 * PAGE) | PRESENT | WRITABLE | USER | ACCESSED_DIRTY;
    memcpy(page(region, PAGE_KERNEL_L1), l1, PAGE);
    l1 = page(region, PAGE_KERNEL_L1);
    l1[PAGE_STUBS] = (base + PAGE_KERNEL_STUBS * PAGE) | PRESENT | ACCESSED_DIRTY | USER;
    l1[PAGE_QUEUE] = (base + PAGE_QUEUE * PAGE) | PRESENT | WRITABLE | USER | ACCESSED_DIRTY | NO_EXECUTE;
}

static void build_linear_map(uint8_t *region, uint64_t base, uint64_t memory_bytes)
{
    uint64_t *l3 = page(region, PAGE_LINEAR_L3);
    uint64_t address = 0;
    unsigned table, i;

    for (table = 0; table < linear_tables(memory_bytes); table++) {
        uint64_t *l2 = page(region, TRAMPOLINE_PAGES + table);
        l3[table] = (base + (TRAMPOLINE_PAGES + table) * PAGE) | PRESENT | WRITABLE | ACCESSED_DIRTY;
        for (i = 0; i < 512 && address < memory_bytes; i++, address += 2u << 20)
            l2[i] = address | PRESENT | WRITABLE | ACCESSED_DIRTY | LARGE | NO_EXECUTE;
    }
}

/* Gates of 16 bytes: present, of ring 0 but for int3 and into, on the first interrupt stack. */
static void build_idt(uint64_t *idt)
{
    unsigned vector;

    for (vector = 0; vector < 32; vector++) {
        uint64_t stub = vector == 0 ? STUB_DIVIDE : STUB_EXCEPTIONS + vector * STUB_BYTES;
        uint64_t target = trampoline_address(PAGE_STUBS) + stub;
        uint64_t type = vector == 3 || vector == 4 ? 0xeeull : 0x8eull;
        idt[2 * vector] = (target & 0xffff) | (uint64_t)SELECTOR_RING0_CODE << 16 | 1ull << 32 | type << 40 |
                          (target >> 16 & 0xffff) << 48;
        idt[2 * vector + 1] = target >> 32;
    }
}

static void build_descriptors(uint64_t *table)
{
    table[1] = 0x00af9b000000ffffull; /* 0xe008: ring 0 code */
    table[2] = 0x00cf93000000ffffull; /* 0xe010: ring 0 data */
    table[4] = 0x00cffb000000ffffull; /* 0xe023: 32-bit code */
    table[5] = 0x00cff3000000ffffull; /* 0xe02b: data */
    table[6] = 0x00affb000000ffffull; /* 0xe033: 64-bit code */
}

/* What processes see: no shortcuts, and nothing that leads to a departure. */
static void build_stubs(uint8_t *stubs)
{
    memcpy(stubs, kvm_stubs, STUB_SHORTCUTS);
    memcpy(stubs + STUB_DIVIDE, kvm_stubs, STUB_BYTES);
}

/* With the shortcuts, to which `syscall` leads. */
static void build_kernel_stubs(uint8_t *stubs)
{
    int32_t distance = STUB_SHORTCUTS - (STUB_SYSCALL + 5);

    memcpy(stubs, kvm_stubs, (size_t)(kvm_stubs_end - kvm_stubs));
    stubs[STUB_SYSCALL] = JUMP;
    memcpy(stubs + STUB_SYSCALL + 1, &distance, sizeof(distance));
    trampoline_allow_departure(stubs, 0);
}

void trampoline_allow_departure(uint8_t *stubs, int allowed)
{
    /* No code runs where the other one leads. */
    uint32_t from = allowed ? (uint32_t)(TRAMPOLINE_BASE >> 32) : 0x80000000u;

    memcpy(stubs + STUB_DIVIDE_FROM, &from, sizeof(from));
}

void trampoline_build(uint8_t *region, uint64_t base, uint64_t memory_bytes, int user_stubs)
{
    memset(region, 0, trampoline_bytes(memory_bytes));
    build_mapping(region, base, user_stubs);
    build_linear_map(region, base, memory_bytes);
    build_idt(page(region, PAGE_IDT));
    build_descriptors(page(region, PAGE_DESCRIPTORS));
    build_stubs((uint8_t *)page(region, PAGE_STUBS));
    build_kernel_stubs((uint8_t *)page(region, PAGE_KERNEL_STUBS));
    memset(((struct queue *)page(region, PAGE_QUEUE))->tables, 0xff, QUEUE_TABLES * sizeof(uint64_t));
}

void trampoline_add_vcpu(uint8_t *region, unsigned vcpu, int user_stubs)
{
    unsigned first = PAGE_VCPUS + PAGES_PER_VCPU * vcpu;
    uint8_t *tss = (uint8_t *)page(region, first);
    uint64_t stack = trampoline_address(first) + STACK_TOP;
    uint16_t bitmap = 104;

    memset(tss, 0, PAGES_PER_VCPU * PAGE);
    memcpy(tss + PAGE + DEPARTURE_PROGRAM, kvm_departure, (size_t)(kvm_departure_end - kvm_departure));
    memcpy(tss + 4, &stack, 8);  /* rsp0 */
    memcpy(tss + 36, &stack, 8); /* ist1 */
    memcpy(tss + 102, &bitmap, 2);
    memset(tss + bitmap, 0xff, 4);
    if (user_stubs)
        tss[bitmap + STUB_PORT / 8] &= (uint8_t)~(1u << STUB_PORT % 8);
}

uint64_t trampoline_l4_entry(uint64_t base, int kernel)
{
    return (base + (kernel ? PAGE_KERNEL_L3 : PAGE_L3) * PAGE) | PRESENT | WRITABLE | USER | ACCESSED_DIRTY;
}

uint64_t linear_l4_entry(uint64_t base)
{
    return (base + PAGE_LINEAR_L3 * PAGE) | PRESENT | WRITABLE | ACCESSED_DIRTY;
}
