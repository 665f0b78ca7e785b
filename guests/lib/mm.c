/* Direct paging as the guest sees it: frames, its own page tables (read-only), and updates by hypercall. */
#include "guest.h"

#ifndef PAGE_POOL
#define PAGE_POOL 64
#endif

u64 *p2m;
u64 kernel_l4;
static char pool[PAGE_POOL][PAGE_SIZE] __attribute__((aligned(4096)));
static u32 pool_used;

u64 mfn_of(const void *address)
{
    return p2m[((u64)address - VIRT_BASE) >> 12];
}

void *va_of_mfn(u64 mfn)
{
    return (void *)(VIRT_BASE + (m2p[mfn] << 12));
}

u64 machine_of(const void *address)
{
    return mfn_of(address) << 12 | ((u64)address & ~PAGE_MASK);
}

static u64 *walk(u64 root, u64 va, int level)
{
    u64 *table = (u64 *)root;
    for (int at = 4;; at--) {
        u64 *entry = &table[va >> (12 + 9 * (at - 1)) & 511];
        if (at == level)
            return entry;
        if (!(*entry & PTE_P))
            return 0;
        table = va_of_mfn((*entry & PTE_ADDR) >> 12);
    }
}

u64 *entry_of(u64 va, int level)
{
    return walk(kernel_l4, va, level);
}

u64 *pte_of(u64 va)
{
    return entry_of(va, 1);
}

s64 set_entry(const void *entry, u64 value)
{
    struct mmu_update update = {machine_of(entry) | MMU_NORMAL_PT_UPDATE, value};
    return xen_mmu_update(&update, 1, 0, DOMID_SELF);
}

s64 mmuext(u32 cmd, u64 arg1, u64 arg2)
{
    struct mmuext_op op = {cmd, arg1, arg2};
    return xen_mmuext_op(&op, 1, 0, DOMID_SELF);
}

s64 map_page(u64 va, u64 pte)
{
    return xen_update_va_mapping(va, pte, UVMF_INVLPG);
}

void *page_alloc(void)
{
    if (pool_used == PAGE_POOL) {
        printf("TEST %s: FAIL out of pages\n", guest_name);
        shutdown(SHUTDOWN_crash);
    }
    return memset(pool[pool_used++], 0, PAGE_SIZE);
}

s64 page_readonly(void *page)
{
    return map_page((u64)page, mfn_of(page) << 12 | PTE_P);
}

s64 page_writable(void *page)
{
    return map_page((u64)page, mfn_of(page) << 12 | PTE_P | PTE_RW);
}

u64 *table_alloc(void)
{
    void *page = page_alloc();
    check(page_readonly(page) == 0);
    return page;
}

u64 *root_copy(u64 root)
{
    u64 *table = page_alloc();
    memcpy(table, (void *)root, PAGE_SIZE);
    memset(&table[256], 0, 16 * sizeof(*table));
    check(page_readonly(table) == 0);
    return table;
}

void map_in(u64 root, u64 va, u64 pte)
{
    for (int level = 4; level > 1; level--) {
        u64 *entry = walk(root, va, level);
        if (!(*entry & PTE_P))
            check(set_entry(entry, mfn_of(table_alloc()) << 12 | PTE_TABLE) == 0);
    }
    check(set_entry(walk(root, va, 1), pte) == 0);
}
