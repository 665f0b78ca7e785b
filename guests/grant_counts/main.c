/* Grants and references: what is mapped stays typed, what is unmapped is let go of once, and by the right mapping only. */
#include "grant.h"

const char guest_name[] = "grant_counts";

static struct grant_entry_v1 *table;
static u64 *page, *window, *second;

static u64 at(const void *va)
{
    return (u64)va;
}

static void set_up(void)
{
    u64 frame;
    check(grant_frames(1, &frame) == 0);
    table = page_alloc();
    check(map_page(at(table), frame << 12 | PTE_P | PTE_RW) == 0);
    page = page_alloc(), window = page_alloc(), second = page_alloc();
    check(map_page(at(window), 0) == 0 && map_page(at(second), 0) == 0);
    check(page_readonly(page) == 0);
}

/* Whether the page may become a table now. */
static s64 retype(void)
{
    s64 result = pin(1, page);
    if (result == 0)
        check(unpin(page) == 0);
    return result;
}

static void types(void)
{
    rule("a frame that is mapped writable through a grant is writable memory until its last unmapping");
    twin("a table before the grant", retype());
    grant_v1(&table[10], GTF_permit_access, mfn_of(page));
    struct grant_map m = grant_map(at(window), GNTMAP_host_map, 10);
    twin_status("map", m.status);
    attack("a table while it is mapped", retype(), -EINVAL);
    struct grant_map n = grant_map(at(second), GNTMAP_host_map, 10);
    twin_status("map it twice", n.status);
    twin_status("unmap the first", grant_unmap(at(window), 0, m.handle));
    attack("a table while the second is there", retype(), -EINVAL);
    stays("the entry says that it is in use", table[10].flags == (GTF_permit_access | GTF_reading | GTF_writing));
    twin_status("unmap the second", grant_unmap(at(second), 0, n.handle));
    stays("the entry says that it is not", table[10].flags == GTF_permit_access);
    twin("a table after it", retype());

    rule("a frame with another type is mapped read-only, not writable, through a grant");
    check(pin(1, page) == 0);
    attack_status("a writable map of a table", grant_map(at(window), GNTMAP_host_map, 10).status, GNTST_general_error);
    stays("the entry says that it is not in use", table[10].flags == GTF_permit_access);
    m = grant_map(at(window), GNTMAP_host_map | GNTMAP_readonly, 10);
    twin_status("a read-only map of a table", m.status);
    TRY("movq $1, (%0)", ::"r"(window) : "memory");
    attack_faults("a write through it", 14, 3);
    attack("the entry's writable bit", map_page(at(window), mfn_of(page) << 12 | PTE_P | PTE_RW), -EBUSY);
    check(m.status || grant_unmap(at(window), 0, m.handle) == 0);
    check(unpin(page) == 0);
}

static void kinds(void)
{
    rule("maps for devices and for the processor are counted apart: unmapping one leaves the other's hold");
    struct grant_map m = grant_map(at(window), GNTMAP_host_map | GNTMAP_device_map, 10);
    twin_status("map for both", m.status);
    twin_status("unmap for the processor", grant_unmap(at(window), 0, m.handle));
    attack("a table while a device may write", retype(), -EINVAL);
    attack_status("unmap for the processor again", grant_unmap(at(window), 0, m.handle), GNTST_okay);
    attack_status("unmap for a device at another address", grant_unmap(0, m.dev_bus_addr + 4096, m.handle),
                  GNTST_bad_dev_addr);
    attack("a table while a device may write", retype(), -EINVAL);
    twin_status("unmap for the device", grant_unmap(0, m.dev_bus_addr, m.handle));
    twin("a table after both", retype());
    attack_status("unmap of the handle again", grant_unmap(at(window), m.dev_bus_addr, m.handle), GNTST_bad_handle);
    twin("a table after that", retype());
    m = grant_map(0, GNTMAP_device_map | GNTMAP_readonly, 10);
    twin_status("map for a device, read-only", m.status);
    twin("a table, which it may read", retype());
    twin_status("unmap it", grant_unmap(0, m.dev_bus_addr, m.handle));
}

static void addresses(void)
{
    u64 entry = machine_of(pte_of(at(window)));
    const u32 by_entry = GNTMAP_host_map | GNTMAP_contains_pte;
    rule("a mapping by its entry's address names a whole entry of an L1 in use");
    attack_status("an entry not aligned, 4 bytes", grant_map(entry + 4, by_entry, 10).status, GNTST_general_error);
    attack_status("an entry not aligned, 1 byte", grant_map(entry + 1, by_entry, 10).status, GNTST_general_error);
    attack_status("an entry of memory", grant_map(machine_of(&failures) & ~7UL, by_entry, 10).status, GNTST_general_error);
    attack_status("an entry of an L2", grant_map(machine_of(entry_of(at(window), 2)), by_entry, 10).status,
                  GNTST_general_error);
    attack_status("an entry of an L4", grant_map(machine_of((u64 *)kernel_l4 + 3), by_entry, 10).status,
                  GNTST_general_error);
    attack_status("an entry beyond memory", grant_map(0xffffffUL << 12, by_entry, 10).status, GNTST_general_error);
    stays("the entry of the grant is not in use", table[10].flags == GTF_permit_access);
    struct grant_map m = grant_map(entry, by_entry, 10);
    twin_status("the entry", m.status);
    attack_status("unmapped, not aligned", grant_unmap(entry + 4, 0, m.handle), GNTST_general_error);
    attack_status("unmapped as another entry", grant_unmap(entry + 8, 0, m.handle), GNTST_general_error);
    attack("a table while it is mapped", retype(), -EINVAL);
    twin_status("unmapped", grant_unmap(entry, 0, m.handle));
    twin("a table after it", retype());
    m = grant_map(at(window) + 8, GNTMAP_host_map, 10);
    printf("  by a linear address that is not aligned: status %d, entry %lx\n", m.status, *pte_of(at(window)) & 0xfff);
    if (m.status == 0)
        twin_status("unmapped", grant_unmap(at(window), 0, m.handle));
    twin("a table after it", retype());
}

static void unmappings(void)
{
    struct grant_map m = grant_map(at(second), GNTMAP_host_map, 10), other;
    rule("an unmapping undoes its own mapping, and only while that is there");
    twin_status("map", m.status);
    attack_status("unmap at an address that maps nothing", grant_unmap(0x12345000, 0, m.handle), GNTST_general_error);
    attack_status("unmap at an address that maps another frame", grant_unmap(at(table), 0, m.handle),
                  GNTST_general_error);
    attack_status("unmap a handle that is none", grant_unmap(at(second), 0, 1 << 30), GNTST_bad_handle);
    attack("a table while it is mapped", retype(), -EINVAL);
    grant_v1(&table[11], GTF_permit_access | GTF_readonly, mfn_of(page));
    attack_status("map what is granted read-only", grant_map(at(window), GNTMAP_host_map, 11).status, GNTST_general_error);
    grant_v1(&table[11], GTF_permit_access, mfn_of(page));
    struct {
        u32 a, b;
        short status;
    } swap = {10, 11, 99};
    check(grant_op(GNTTABOP_swap_grant_ref, &swap, 1) == 0);
    attack_status("swap with an entry in use", swap.status, -12);
    table[10].flags = 0; /* the guest forgets its grant while it is in use */
    twin_status("unmap when the entry is gone", grant_unmap(at(second), 0, m.handle));
    twin("a table after it", retype());
    check(table[10].flags == 0);
    grant_v1(&table[10], GTF_permit_access, mfn_of(page));
    other = grant_map(at(second), GNTMAP_host_map, 10);
    twin_status("map again", other.status);
    struct {
        u64 host_addr, new_addr;
        u32 handle;
        short status;
    } replace = {at(second), 0x12345000, other.handle, 99};
    check(grant_op(GNTTABOP_unmap_and_replace, &replace, 1) == 0);
    attack_status("unmap and replace by what is not mapped", replace.status, GNTST_general_error);
    attack("a table while it is mapped", retype(), -EINVAL);
    u64 *spare = page_alloc(), moved = *pte_of(at(spare)) >> 12;
    replace.new_addr = at(spare), replace.status = 99;
    check(grant_op(GNTTABOP_unmap_and_replace, &replace, 1) == 0);
    twin_status("unmap and replace by a page of ours", replace.status);
    stays("its mapping has moved", *pte_of(at(second)) >> 12 == moved && *pte_of(at(spare)) == 0);
    twin("a table after it", retype());
}

static void transfers(void)
{
    struct {
        u64 mfn;
        u16 domid;
        u32 ref;
        short status;
    } t = {mfn_of((void *)kernel_l4), own_domid(), 12, 99};
    rule("a transfer gives away frames that are the caller's and in no use, to a domain that asked for one");
    grant_v1(&table[12], GTF_accept_transfer, 0);
    check(grant_op(GNTTABOP_transfer, &t, 1) == 0);
    attack_status("a page table in use", t.status, GNTST_bad_page);
    t.mfn = 0xffffff, t.status = 99;
    check(grant_op(GNTTABOP_transfer, &t, 1) == 0);
    attack_status("a frame beyond memory", t.status, GNTST_bad_page);
    t.mfn = start_info->shared_info >> 12, t.status = 99;
    check(grant_op(GNTTABOP_transfer, &t, 1) == 0);
    attack_status("the shared info page", t.status, GNTST_bad_page);
    u64 *given = page_alloc();
    t.mfn = mfn_of(given), t.status = 99;
    check(grant_op(GNTTABOP_transfer, &t, 1) == 0);
    attack_status("a frame that is mapped", t.status, GNTST_bad_page);
    stays("it is ours", m2p[t.mfn] == (at(given) - VIRT_BASE) >> 12);
    check(map_page(at(given), 0) == 0);
    t.domid = 999, t.status = 99;
    check(grant_op(GNTTABOP_transfer, &t, 1) == 0);
    attack_status("to domain 999", t.status, GNTST_bad_domain);
    attack("mapping it: Xen took it before it looked for the domain", page_writable(given), -EBUSY);
    table[12].flags = 0;
}

void guest_main(void)
{
    set_up();
    types();
    kinds();
    addresses();
    unmappings();
    transfers();
}
