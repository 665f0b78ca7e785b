/* Page-table updates by mmu_update and update_va_mapping: what they do, and the exact refusals. */
#include "guest.h"

const char guest_name[] = "pagetables";

#define PTE_SHOWN 0xfff0000000000fffUL

static char *page, *other;

static s64 update(u64 ptr, u64 val)
{
    struct mmu_update u = {ptr, val};
    return xen_mmu_update(&u, 1, 0, DOMID_SELF);
}

static u64 mfn(const void *p)
{
    return mfn_of(p);
}

static void flags(void)
{
    static const struct {
        const char *name;
        u64 bits;
    } sets[] = {
        {"P", PTE_P},
        {"P RW", PTE_P | PTE_RW},
        {"P RW US", PTE_P | PTE_RW | PTE_US},
        {"P RW A D", PTE_P | PTE_RW | PTE_A | PTE_D},
        {"P RW NX", PTE_P | PTE_RW | PTE_NX},
        {"P RW G", PTE_P | PTE_RW | PTE_G},
        {"P RW PWT", PTE_P | PTE_RW | PTE_PWT},
        {"P RW PCD", PTE_P | PTE_RW | PTE_PCD},
        {"P RW PCD PWT", PTE_P | PTE_RW | PTE_PCD | PTE_PWT},
        {"P RW PAT", PTE_P | PTE_RW | PTE_PS},
        {"P RW bit 9", PTE_P | PTE_RW | 0x200},
        {"P RW bit 10", PTE_P | PTE_RW | 0x400},
        {"P RW bit 11", PTE_P | PTE_RW | 0x800},
        {"P RW bit 52", PTE_P | PTE_RW | 1UL << 52},
        {"P RW bit 53", PTE_P | PTE_RW | 1UL << 53},
        {"P RW bit 58", PTE_P | PTE_RW | 1UL << 58},
        {"P RW bit 62", PTE_P | PTE_RW | 1UL << 62},
        {"not present, bits", 0xaa0},
        {"not present, all bits", 0xfff0000000000ffe},
    };
    for (u64 i = 0; i < ARRAY_SIZE(sets); i++) {
        u64 val = mfn(page) << 12 | sets[i].bits;
        s64 result = update(machine_of(pte_of((u64)page)), val);
        mmuext(MMUEXT_INVLPG_LOCAL, (u64)page, 0);
        printf("%s: %s", sets[i].name, error_name(result));
        printf(" reads %lx\n", *pte_of((u64)page) & PTE_SHOWN);
    }
    check(page_writable(page) == 0);
}

static void kinds(void)
{
    u64 pte = machine_of(pte_of((u64)page)), frame = mfn(page) << 12;
    check(update(pte, frame | PTE_P | PTE_RW | PTE_A | PTE_D) == 0);
    expect_result("preserve A and D", update(pte | MMU_PT_UPDATE_PRESERVE_AD, frame | PTE_P), 0);
    printf("reads %lx\n", *pte_of((u64)page) & PTE_SHOWN);
    expect_result("normal", update(pte, frame | PTE_P), 0);
    printf("reads %lx\n", *pte_of((u64)page) & PTE_SHOWN);
    expect_result("no translate", update(pte | MMU_PT_UPDATE_NO_TRANSLATE, frame | PTE_P | PTE_RW), 0);
    u64 pfn = m2p[mfn(page)];
    expect_result("machine-to-phys", update(frame | MMU_MACHPHYS_UPDATE, 0x1234567), 0);
    printf("reads %lx\n", m2p[mfn(page)]);
    check(m2p[mfn(page)] == 0x1234567);
    expect_result("machine-to-phys back", update(frame | MMU_MACHPHYS_UPDATE, pfn), 0);
    expect_result("bit 2 of the address set", update(pte | 4, frame | PTE_P | PTE_RW), -ENOSYS);
    expect_result("kind and bit 2", update(pte | 5, frame | PTE_P | PTE_RW), -ENOSYS);
    /* A frame that is no page table is written as plain memory. */
    expect_result("a frame that is no table", update(machine_of(other + 16), 0x1122334455667788), 0);
    printf("reads %lx\n", *(u64 *)(other + 16));
    check(*(u64 *)(other + 16) == 0x1122334455667788);
}

static void refused_targets(void)
{
    u64 pte = machine_of(pte_of((u64)page)), low = PTE_P | PTE_RW;
    u64 table = *entry_of((u64)page, 2) & PTE_ADDR;
    char *clean = page_alloc();
    expect_result("L1 frame, writable", update(pte, table | low), -EBUSY);
    expect_result("L1 frame, read-only", update(pte, table | PTE_P), 0);
    expect_result("L4 frame, writable", update(pte, mfn((void *)kernel_l4) << 12 | low), -EBUSY);
    expect_result("frame 0", update(pte, low), -EPERM);
    expect_result("frame beyond memory", update(pte, 0xffffff000UL | low), -EPERM);
    expect_result("frame beyond the address width", update(pte, 0xfffffffff000UL | low), -EPERM);
    expect_result("shared info, writable", update(pte, (start_info->shared_info & PTE_ADDR) | low), 0);
    expect_result("back", update(pte, mfn(page) << 12 | low), 0);

    /* The image lies in the last but one GiB: the first entries of its L3 and L4 are free. */
    u64 *empty2 = entry_of((u64)page, 2), *empty3 = (u64 *)((u64)entry_of((u64)page, 3) & PAGE_MASK);
    u64 *empty4 = (u64 *)kernel_l4 + 1;
    while (*empty2)
        empty2++;
    u64 e2 = machine_of(empty2), e3 = machine_of(empty3), e4 = machine_of(empty4);
    expect_result("L2: a writable frame", update(e2, mfn(clean) << 12 | PTE_TABLE), -EINVAL);
    expect_result("L2: superpage", update(e2, (mfn(clean) & ~511UL) << 12 | PTE_TABLE | PTE_PS), -EINVAL);
    expect_result("L2: superpage, read-only", update(e2, (mfn(clean) & ~511UL) << 12 | PTE_P | PTE_PS), -EINVAL);
    expect_result("L3: superpage", update(e3, PTE_TABLE | PTE_PS), -EINVAL);
    expect_result("L4: superpage", update(e4, mfn(clean) << 12 | PTE_TABLE | PTE_PS), -EINVAL);
    check(page_readonly(clean) == 0);
    expect_result("L2: a frame seen read-only", update(e2, mfn(clean) << 12 | PTE_TABLE), 0);
    printf("reads %lx\n", *empty2 & PTE_SHOWN);
    expect_result("that frame, writable again", map_page((u64)clean, mfn(clean) << 12 | low), -EBUSY);
    expect_result("L3: a frame in use as L1", update(e3, mfn(clean) << 12 | PTE_TABLE), -EINVAL);
    expect_result("L4: a frame in use as L1", update(e4, mfn(clean) << 12 | PTE_TABLE), -EINVAL);
    expect_result("L2: not present, with frame", update(e2, mfn(clean) << 12), 0);
    expect_result("that frame, writable again", map_page((u64)clean, mfn(clean) << 12 | low), 0);
    check(page_readonly(clean) == 0);
    expect_result("L2: read-only table", update(e2, mfn(clean) << 12 | PTE_P | PTE_A), 0);
    printf("reads %lx\n", *empty2 & PTE_SHOWN);
    expect_result("L2: with NX and available bits", update(e2, mfn(clean) << 12 | PTE_TABLE | PTE_NX | 0xe00), 0);
    printf("reads %lx\n", *empty2 & PTE_SHOWN);
    expect_result("L2: with G", update(e2, mfn(clean) << 12 | PTE_TABLE | PTE_G), -EINVAL);
    expect_result("L2: with PCD and PWT", update(e2, mfn(clean) << 12 | PTE_TABLE | PTE_PCD | PTE_PWT), -EINVAL);
    printf("reads %lx\n", *empty2 & PTE_SHOWN);
    expect_result("L2: clear", update(e2, 0), 0);
    expect_result("L4: itself, read-only", update(e4, mfn((void *)kernel_l4) << 12 | PTE_P | PTE_US | PTE_A), 0);
    printf("reads %lx\n", *empty4 & PTE_SHOWN);
    expect_result("L4: itself, writable", update(e4, mfn((void *)kernel_l4) << 12 | PTE_TABLE), -EINVAL);
    expect_result("L4: clear", update(e4, 0), 0);
    for (int slot = 255; slot < 273; slot++) {
        u64 *entry = (u64 *)kernel_l4 + slot;
        s64 clear = update(machine_of(entry), 0);
        if (slot == 255 || slot == 256 || slot == 257 || slot == 271 || slot == 272)
            printf("L4 slot %d: clear: %s\n", slot, error_name(clear));
        check(clear == (slot < 256 || slot > 271 ? 0 : -EINVAL));
    }
}

static void bad_requests(void)
{
    struct mmu_update list[3];
    u64 pte = machine_of(pte_of((u64)page)), low = PTE_P | PTE_RW;
    u32 done = 99;
    list[0] = (struct mmu_update){pte, mfn(page) << 12 | PTE_P};
    list[1] = (struct mmu_update){pte, 0xffffff000UL | low};
    list[2] = (struct mmu_update){pte, mfn(page) << 12 | low};
    expect_result("second of three refused", xen_mmu_update(list, 3, &done, DOMID_SELF), -EPERM);
    printf("done=%u\n", done);
    list[1] = list[2];
    expect_result("all three good", xen_mmu_update(list, 3, &done, DOMID_SELF), 0);
    printf("done=%u\n", done);
    expect_result("none", xen_mmu_update(list, 0, &done, DOMID_SELF), 0);
    printf("done=%u\n", done);
    expect_result("list not mapped", xen_mmu_update((void *)0x12345000, 1, &done, DOMID_SELF), -EFAULT);
    expect_result("done pointer not mapped", xen_mmu_update(list, 1, (u32 *)0x12345000, DOMID_SELF), 0);
    expect_result("address beyond memory", update(0xffffff000UL, mfn(page) << 12 | low), -EINVAL);
    expect_result("address in frame 0", update(8, mfn(page) << 12 | low), -EINVAL);
    expect_result("domain invalid", xen_mmu_update(list, 1, 0, DOMID_INVALID), -ESRCH);
    expect_result("domain 999", xen_mmu_update(list, 1, 0, 999), -ESRCH);
    if (is_domU()) {
        printf("frames of domain 0: %s\n", error_name(xen_mmu_update(list, 1, 0, 0)));
        printf("frames of DOMID_IO: %s\n", error_name(xen_mmu_update(list, 1, 0, DOMID_IO)));
        printf("frames of DOMID_XEN: %s\n", error_name(xen_mmu_update(list, 1, 0, DOMID_XEN)));
        printf("machine-to-phys of a foreign frame: %s\n", error_name(update(MMU_MACHPHYS_UPDATE, 1)));
    }
}

static void by_address(void)
{
    u64 low = PTE_P | PTE_RW, frame = mfn(page) << 12;
    expect_result("va not mapped", map_page(0x12345000, frame | low), -EINVAL);
    expect_result("va non-canonical", map_page(1UL << 62, frame | low), -EINVAL);
    expect_result("va in Xen's range", map_page(0xffff830000000000, frame | low), -EINVAL);
    expect_result("va of the machine-to-phys table", map_page(MACH2PHYS_VIRT_START, frame | low), -EINVAL);
    expect_result("va not aligned", map_page((u64)page + 0x123, frame | PTE_P), 0);
    printf("reads %lx\n", *pte_of((u64)page) & PTE_SHOWN);
    expect_result("a table, writable", map_page((u64)page, mfn((void *)kernel_l4) << 12 | low), -EBUSY);
    expect_result("frame beyond memory", map_page((u64)page, 0xffffff000UL | low), -EPERM);
    for (u64 flags = 0; flags < 8; flags++) {
        printf("flags %lu: %s\n", flags, error_name(xen_update_va_mapping((u64)page, frame | low, flags)));
    }
    u64 cpus = 1;
    expect_result("flush by a vcpu bitmap", xen_update_va_mapping((u64)page, frame | low, (u64)&cpus | 1), 0);
    printf("flush by a bad bitmap: %s\n", error_name(xen_update_va_mapping((u64)page, frame | low, 0x12345000 | 1)));
    expect_result("other domain: self", H4(__HYPERVISOR_update_va_mapping_otherdomain, page, frame | low, 0, DOMID_SELF),
                  0);
    printf("other domain: 0: %s\n",
           error_name(H4(__HYPERVISOR_update_va_mapping_otherdomain, page, frame | low, 0, 0)));
    expect_result("other domain: 999", H4(__HYPERVISOR_update_va_mapping_otherdomain, page, frame | low, 0, 999), -ESRCH);
}

static void aliases(void)
{
    /* One frame at two addresses: both see a write, and the frame becomes a table only when both are read-only. */
    char *frame = page_alloc(), *window = page_alloc();
    check(map_page((u64)window, mfn(frame) << 12 | PTE_P | PTE_RW) == 0);
    frame[7] = 42;
    printf("alias reads %d\n", window[7]);
    check(window[7] == 42);
    frame[7] = 0;
    check(page_readonly(frame) == 0);
    expect_result("pin with a writable alias", mmuext(MMUEXT_PIN_L1_TABLE, mfn(frame), 0), -EINVAL);
    check(map_page((u64)window, mfn(frame) << 12 | PTE_P) == 0);
    expect_result("pin without", mmuext(MMUEXT_PIN_L1_TABLE, mfn(frame), 0), 0);
    expect_result("alias writable now", map_page((u64)window, mfn(frame) << 12 | PTE_P | PTE_RW), -EBUSY);
    expect_result("unpin", mmuext(MMUEXT_UNPIN_TABLE, mfn(frame), 0), 0);
    expect_result("alias writable now", map_page((u64)window, mfn(frame) << 12 | PTE_P | PTE_RW), 0);
}

static void regions(void)
{
    char *code = page_alloc();
    map_in(kernel_l4, 0x7f0000000000, mfn(code) << 12 | PTE_P | PTE_RW | PTE_US);
    *(u64 *)0x7f0000000008 = 77;
    printf("mapped far away: %lu\n", *(u64 *)(code + 8));
    map_in(kernel_l4, 0xffff880000000000, mfn(code) << 12 | PTE_P | PTE_RW);
    printf("mapped above Xen: %lu\n", *(u64 *)0xffff880000000008);
    check(*(u64 *)0xffff880000000008 == 77);
}

void guest_main(void)
{
    page = page_alloc();
    other = page_alloc();
    flags();
    kinds();
    refused_targets();
    bad_requests();
    by_address();
    aliases();
    regions();
}
