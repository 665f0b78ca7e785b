/* Writes of the guest kernel to its own read-only L1 tables, which Xen checks and carries out for it. */
#include "guest.h"

const char guest_name[] = "ptwr";

#define PTE_SHOWN 0xfff0000000000fffUL
#define WINDOW 0x10000000UL

static u64 *table; /* a live L1 table, seen read-only; its entry i maps WINDOW + i * 4096 */
static char *page, *other;

static void show(const char *label, const u64 *entry)
{
    printf("%s: %s", label, vector_name(fault.vector));
    if (fault.vector == 14)
        printf("(%lx)", fault.error);
    printf(", entry %lx", *entry & PTE_SHOWN);
    u64 mfn = (*entry & PTE_ADDR) >> 12;
    printf(" %s\n", mfn == mfn_of(page) ? "page" : mfn == mfn_of(other) ? "other" : mfn ? "?" : "none");
}

#define SHOW(label, text, ...)                  \
    do {                                        \
        u64 *entry = &table[turn++];            \
        TRY(text, __VA_ARGS__);                 \
        show(label, entry);                     \
    } while (0)

static u32 turn;

static void by_request(void)
{
    /* Xen does this only for a guest that asked for it. */
    SHOW("before the guest asks", "movq %1, (%0)", ::"r"(entry), "r"(0UL));
    expect_result("vm_assist writable_pagetables", H2(__HYPERVISOR_vm_assist, VMASST_CMD_enable, 2), 0);
}

static void forms(void)
{
    u64 good = mfn_of(page) << 12 | PTE_P | PTE_RW | PTE_A | PTE_D, old = 0;
    u64 second = mfn_of(other) << 12 | PTE_P | PTE_RW | PTE_A;
    u8 flag = 0;
    SHOW("mov 8", "movq %1, (%0)", ::"r"(entry), "r"(good));
    turn--;
    SHOW("mov 8 over it", "movq %1, (%0)", ::"r"(entry), "r"(second));
    turn--;
    old = second;
    u64 swapped = good;
    SHOW("xchg", "xchgq %0, (%1)", : "+r"(swapped) : "r"(entry));
    printf("  got the entry: %d\n", (swapped & ~0xfff0000000000fffUL) == (second & PTE_ADDR));
    turn--;
    old = table[turn];
    SHOW("cmpxchg, equal", "lock cmpxchgq %3, (%2); setz %1", : "+a"(old), "=m"(flag) : "r"(entry), "r"(second));
    printf("  zero flag: %d\n", flag);
    turn--;
    old = 0x1234;
    SHOW("cmpxchg, not equal", "lock cmpxchgq %2, (%1)", : "+a"(old) : "r"(entry), "r"(good));
    printf("  got the entry: %d\n", old == table[turn - 1]);
    turn--;
    SHOW("btr RW", "lock btrq $1, (%1); setc %0", : "=m"(flag) : "r"(entry));
    printf("  carry flag: %d\n", flag);
    turn--;
    SHOW("bts RW", "lock btsq $1, (%0)", ::"r"(entry));
    turn--;
    SHOW("btc RW", "lock btcq $1, (%0)", ::"r"(entry));
    turn--;
    SHOW("or", "lock orq $2, (%0)", ::"r"(entry));
    turn--;
    SHOW("and", "lock andq %1, (%0)", ::"r"(entry), "r"(~PTE_D));
    turn--;
    SHOW("xor", "xorq $0x40, (%0)", ::"r"(entry));
    turn--;
    SHOW("add", "addq $0x200, (%0)", ::"r"(entry));
    turn--;
    SHOW("sub", "subq $0x200, (%0)", ::"r"(entry));
    turn--;
    SHOW("inc", "incq (%0)", ::"r"(entry));
    turn--;
    SHOW("mov 0", "movq $0, (%0)", ::"r"(entry));
    turn--;
    SHOW("xadd", "movq %1, %%rax; lock xaddq %%rax, (%0)", ::"r"(entry), "r"(good) : "rax");
    turn--;
    SHOW("movnti", "movnti %1, (%0)", ::"r"(entry), "r"(second));
    turn--;
    SHOW("stosq", "movq %0, %%rdi; movq %1, %%rax; stosq", ::"r"(entry), "r"(good) : "rdi", "rax");
    turn--;
    SHOW("movsq", "movq %0, %%rdi; leaq %1, %%rsi; movsq", ::"r"(entry), "m"(second) : "rdi", "rsi");
    turn--;
    SHOW("not", "notq (%0)", ::"r"(entry));
    turn--;
    SHOW("mov 0", "movq $0, (%0)", ::"r"(entry));
    turn--;
    SHOW("push", "movq %%rsp, %%rbx; leaq 8(%0), %%rsp; pushq %1; movq %%rbx, %%rsp", ::"r"(entry), "r"(good) : "rbx");
    turn++;
}

static void sizes(void)
{
    u64 good = mfn_of(page) << 12 | PTE_P | PTE_RW | PTE_A | PTE_D;
    u64 *entry = &table[turn];
    TRY("movl %1, (%0)", ::"r"(entry), "r"((u32)0x12345000));
    show("mov 4 low, not present", entry);
    TRY("movl %1, 4(%0)", ::"r"(entry), "r"((u32)0x1234));
    show("mov 4 high, not present", entry);
    TRY("movq $0, (%0)", ::"r"(entry));
    TRY("movl %1, 4(%0)", ::"r"(entry), "r"((u32)(good >> 32)));
    TRY("movl %1, (%0)", ::"r"(entry), "r"((u32)good));
    show("two halves make an entry", entry);
    TRY("movb %1, (%0)", ::"r"(entry), "q"((u8)(PTE_P | PTE_A)));
    show("mov 1", entry);
    TRY("movw %1, (%0)", ::"r"(entry), "r"((u16)((good & 0xf000) | PTE_P | PTE_RW)));
    show("mov 2", entry);
    TRY("andb $0xfd, (%0)", ::"r"(entry));
    show("and 1", entry);
    TRY("movl $0, (%0)", ::"r"(entry));
    show("mov 4 of zero", entry);
    TRY("movq $0, (%0)", ::"r"(entry));
    TRY("movq %1, 4(%0)", ::"r"(entry), "r"(0UL));
    show("mov 8 across two entries", entry);
    TRY("movq %1, -4(%0)", ::"r"((u64)table + 4096), "r"(0UL));
    printf("mov 8 across the table's end: %s\n", vector_name(fault.vector));
    turn++;
}

static void refusals(void)
{
    u64 low = PTE_P | PTE_RW;
    u64 *entry = &table[turn];
    TRY("movq %1, (%0)", ::"r"(entry), "r"(mfn_of((void *)kernel_l4) << 12 | low));
    show("the L4 table writable", entry);
    TRY("movq %1, (%0)", ::"r"(entry), "r"(0xffffff000UL | low));
    show("a frame beyond memory", entry);
    TRY("movq %1, (%0)", ::"r"(entry), "r"(mfn_of(page) << 12 | low | PTE_PS));
    show("the PAT bit", entry);
    TRY("movq %1, (%0)", ::"r"(entry), "r"(mfn_of(page) << 12 | low | PTE_PCD));
    show("uncached", entry);
    u64 *l2 = entry_of(WINDOW, 2);
    TRY("movq $0, 8(%0)", ::"r"(l2));
    printf("an L2 table: %s(%lx)\n", vector_name(fault.vector), fault.error);
    TRY("movq $0, 8(%0)", ::"r"(kernel_l4));
    printf("an L4 table: %s(%lx)\n", vector_name(fault.vector), fault.error);
    char *plain = page_alloc();
    check(page_readonly(plain) == 0);
    TRY("movq $0, (%0)", ::"r"(plain));
    printf("a read-only page that is no table: %s(%lx)\n", vector_name(fault.vector), fault.error);
    check(mmuext(MMUEXT_PIN_L1_TABLE, mfn_of(plain), 0) == 0);
    TRY("movq %1, (%0)", ::"r"(plain), "r"(mfn_of(page) << 12 | low));
    printf("a pinned table that maps nothing yet: %s, entry %lx\n", vector_name(fault.vector),
           *(u64 *)plain & PTE_SHOWN);
    check(mmuext(MMUEXT_UNPIN_TABLE, mfn_of(plain), 0) == 0);
    TRY("movq $0, (%0)", ::"r"(plain));
    printf("no longer a table: %s(%lx)\n", vector_name(fault.vector), fault.error);
}

static void effects(void)
{
    /* The change is seen at once where nothing was mapped before, and after a flush where something was. */
    u64 *entry = &table[turn];
    u64 va = WINDOW + turn * PAGE_SIZE;
    page[0] = 1, other[0] = 2;
    *(volatile u64 *)entry = mfn_of(page) << 12 | PTE_P | PTE_RW;
    printf("mapped: %d\n", *(volatile char *)va);
    *(volatile u64 *)entry = mfn_of(other) << 12 | PTE_P;
    mmuext(MMUEXT_INVLPG_LOCAL, va, 0);
    printf("remapped: %d\n", *(volatile char *)va);
    check(*(volatile char *)va == 2);
    TRY("movb $3, (%0)", ::"r"(va));
    printf("write through it: %s(%lx)\n", vector_name(fault.vector), fault.error);
    *(volatile u64 *)entry = 0;
    mmuext(MMUEXT_INVLPG_LOCAL, va, 0);
    TRY("movb (%0), %%al", ::"r"(va) : "rax");
    printf("unmapped: %s(%lx)\n", vector_name(fault.vector), fault.error);
    u64 flags;
    *(volatile u64 *)entry = 0xf0;
    TRY("addq $0x10, (%1); pushfq; popq %0", : "=r"(flags) : "r"(entry));
    printf("flags of an emulated add: %lx\n", flags & 0x8d5);
    TRY("std; movq %1, (%0)", ::"r"(entry), "r"(0UL));
    asm volatile("cld");
    printf("direction flag set: %s\n", vector_name(fault.vector));
}

void guest_main(void)
{
    page = page_alloc();
    other = page_alloc();
    map_in(kernel_l4, WINDOW, 0);
    table = (u64 *)((u64)pte_of(WINDOW) & PAGE_MASK);
    by_request();
    forms();
    sizes();
    refusals();
    effects();
}
