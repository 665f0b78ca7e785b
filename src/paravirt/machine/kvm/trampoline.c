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
#define NO_EXECUTE (1ull << 63)

#define STRINGIZE(x) #x
#define TEXT(x) STRINGIZE(x)

/* The stubs.  They lie at fixed offsets, so that the host knows by rip which one stopped.
 *
 * The last one changes nothing of the guest: for each address of the list behind its stack page it makes the write
 * that changes no byte, which a host that shadows page tables answers by dropping what it derived from the entry
 * (or, at offset 1, from the table).  Then it enters the guest, or the stub before it, which stops. */
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
        ".org kvm_stubs + 0x210\n"
        "    out %al, $" TEXT(STUB_PORT) "\n"
        "    ud2\n"
        ".org kvm_stubs + 0x220\n"
        "    out %al, $" TEXT(STUB_PORT) "\n"
        "    ud2\n"
        ".org kvm_stubs + 0x230\n"
        "    out %al, $" TEXT(STUB_PORT) "\n"
        "    ud2\n"
        ".org kvm_stubs + 0x300\n"
        "    push %rax\n"
        "    push %rcx\n"
        "    push %rdx\n"
        "    mov %rsp, %rdx\n"
        "    or $0xfff, %rdx\n"
        "    mov 1(%rdx), %ecx\n"
        "    jmp 2f\n"
        "1:  mov 1(%rdx,%rcx,8), %rax\n"
        "    test $1, %al\n"
        "    jz 3f\n"
        "    lock orb $0, (%rax)\n"
        "    jmp 4f\n"
        "3:  lock orq $0, (%rax)\n"
        "4:  dec %ecx\n"
        "2:  test %ecx, %ecx\n"
        "    jnz 1b\n"
        "    cmpl $0, 5(%rdx)\n"
        "    je 5f\n"
        "    mov %cr3, %rax\n"
        "    mov %rax, %cr3\n"
        "5:  pop %rdx\n"
        "    pop %rcx\n"
        "    pop %rax\n"
        "    iretq\n"
        ".org kvm_stubs + 0x380\n"
        "kvm_stubs_end:\n"
        ".popsection\n");
extern const uint8_t kvm_stubs[], kvm_stubs_end[];

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
    for (i = PAGE_VCPUS; i < TRAMPOLINE_PAGES; i++)
        l1[i] = (base + i * PAGE) | PRESENT | WRITABLE | ACCESSED_DIRTY | NO_EXECUTE;
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
        uint64_t target = trampoline_address(PAGE_STUBS) + STUB_EXCEPTIONS + vector * STUB_BYTES;
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

void trampoline_build(uint8_t *region, uint64_t base, uint64_t memory_bytes, int user_stubs)
{
    memset(region, 0, trampoline_bytes(memory_bytes));
    build_mapping(region, base, user_stubs);
    build_linear_map(region, base, memory_bytes);
    build_idt(page(region, PAGE_IDT));
    build_descriptors(page(region, PAGE_DESCRIPTORS));
    memcpy(page(region, PAGE_STUBS), kvm_stubs, (size_t)(kvm_stubs_end - kvm_stubs));
}

void trampoline_add_vcpu(uint8_t *region, unsigned vcpu)
{
    unsigned first = PAGE_VCPUS + PAGES_PER_VCPU * vcpu;
    uint8_t *tss = (uint8_t *)page(region, first);
    uint64_t stack = trampoline_address(first) + STACK_TOP;
    uint16_t bitmap = 104;

    memset(tss, 0, PAGES_PER_VCPU * PAGE);
    memcpy(tss + 4, &stack, 8);  /* rsp0 */
    memcpy(tss + 36, &stack, 8); /* ist1 */
    memcpy(tss + 102, &bitmap, 2);
    memset(tss + bitmap, 0xff, 4);
    tss[bitmap + STUB_PORT / 8] &= (uint8_t)~(1u << STUB_PORT % 8);
}

uint64_t trampoline_l4_entry(uint64_t base)
{
    return (base + PAGE_L3 * PAGE) | PRESENT | WRITABLE | USER | ACCESSED_DIRTY;
}

uint64_t linear_l4_entry(uint64_t base)
{
    return (base + PAGE_LINEAR_L3 * PAGE) | PRESENT | WRITABLE | ACCESSED_DIRTY;
}
