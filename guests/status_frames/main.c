/* Grant table version 2: status frames, changes of version, sub-page and transitive grants. */
#include "grant.h"

const char guest_name[] = "status_frames";

static union grant_entry_v2 *table;
static volatile u16 *status;
static u64 *page, *window;

static s64 version(u32 wanted)
{
    return grant_op(GNTTABOP_set_version, &wanted, 1);
}

static s64 status_list(u32 count, u16 dom, u64 *list)
{
    struct {
        u32 nr_frames;
        u16 dom;
        short status;
        u64 *frame_list;
    } s = {count, dom, 99, list};
    s64 result = grant_op(GNTTABOP_get_status_frames, &s, 1);
    return result ? result : s.status;
}

static void lists(void)
{
    u64 frames[8] = {0};
    rule("status frames are told for one's own table, no more than there are, and only in version 2");
    attack_status("in version 1", status_list(1, DOMID_SELF, frames), GNTST_general_error);
    twin("set_version 2", version(2));
    twin_status("one frame", status_list(1, DOMID_SELF, frames));
    attack_status("more than there are", status_list(8, DOMID_SELF, frames), GNTST_general_error);
    attack_status("all ones", status_list(0xffffffff, DOMID_SELF, frames), GNTST_general_error);
    attack_status("of domain 0", status_list(1, 0, frames), GNTST_permission_denied);
    attack_status("of domain 999", status_list(1, 999, frames), GNTST_bad_domain);
    printf("  list not mapped: status %ld\n", status_list(1, DOMID_SELF, (u64 *)0x12345000));
    twin_status("none", status_list(0, DOMID_SELF, frames));
    check(frames[0] != 0);
    status = page_alloc();
    twin("map the status frame", map_page((u64)status, frames[0] << 12 | PTE_P | PTE_RW));
    attack("use it as a page table", mmuext(MMUEXT_PIN_L1_TABLE, frames[0], 0), -EINVAL);
}

static void versions(void)
{
    rule("the version does not change while a grant is in use or a status frame is mapped: -EBUSY");
    table[10].full.domid = own_domid(), table[10].full.frame = mfn_of(page), table[10].full.flags = GTF_permit_access;
    struct grant_map m = grant_map((u64)window, GNTMAP_host_map, 10);
    twin_status("map a grant", m.status);
    stays("its status word says so", m.status == 0 && status[10] == (GTF_reading | GTF_writing));
    attack("version 1, a grant in use", version(1), -EBUSY);
    twin("version 2, which it has", version(2));
    twin_status("unmap", grant_unmap((u64)window, 0, m.handle));
    stays("its status word says so", status[10] == 0);
    attack("version 1, a status frame mapped", version(1), -EBUSY);
    stays("the table is as it was", status[10] == 0 && table[10].full.flags == GTF_permit_access);
    u64 frame = *pte_of((u64)status) >> 12 & 0xffffffffff;
    check(map_page((u64)status, 0) == 0);
    twin("version 1, no status frame mapped", version(1));
    attack("map the former status frame", map_page((u64)status, frame << 12 | PTE_P | PTE_RW), -EBUSY);
    attack_status("its number", status_list(1, DOMID_SELF, &frame), GNTST_general_error);
    twin("version 2 again", version(2));
    twin_status("its status frame", status_list(1, DOMID_SELF, &frame));
    twin("map it", map_page((u64)status, frame << 12 | PTE_P | PTE_RW));
    stays("no grant is in use", status[10] == 0);
    for (int i = 0; i < 8; i++)
        check(version(2) == 0);
    attack("version 3", version(3), -EINVAL);
    attack("version 0", version(0), -EINVAL);
}

static s64 copy(u32 ref, u16 offset, u16 length)
{
    struct grant_copy c = {{ref, own_domid(), offset}, {mfn_of(window + 0), DOMID_SELF, 0}, length, 1, 99};
    check(grant_op(GNTTABOP_copy, &c, 1) == 0);
    return c.status;
}

static void parts(void)
{
    union grant_entry_v2 *e = &table[20];
    u16 self = own_domid();
    check(page_writable(window) == 0);
    rule("a sub-page grant gives its bytes to copies only, and not one more");
    e->sub_page.domid = self, e->sub_page.frame = mfn_of(page), e->sub_page.page_off = 100, e->sub_page.length = 50;
    e->sub_page.flags = GTF_permit_access | GTF_sub_page | GTF_readonly;
    twin_status("all of it", copy(20, 100, 50));
    twin_status("a byte of it", copy(20, 149, 1));
    attack_status("one more", copy(20, 100, 51), GNTST_general_error);
    attack_status("one before", copy(20, 99, 1), GNTST_general_error);
    attack_status("one behind", copy(20, 150, 1), GNTST_general_error);
    struct grant_map m = grant_map((u64)window, GNTMAP_host_map | GNTMAP_readonly, 20);
    attack_status("mapped", m.status, GNTST_general_error);
    stays("not in use", status[20] == 0);

    rule("a transitive grant leads to a grant for the same domain, and not around in circles");
    e = &table[21];
    e->transitive.domid = self, e->transitive.trans_domid = self, e->transitive.gref = 22;
    e->transitive.flags = GTF_transitive | GTF_readonly;
    table[22].full.domid = self, table[22].full.frame = mfn_of(page);
    table[22].full.flags = GTF_permit_access | GTF_readonly;
    printf("  to another grant of ours: status %ld\n", copy(21, 0, 16));
    e->transitive.gref = 21;
    attack_status("to itself", copy(21, 0, 16), GNTST_general_error);
    e->transitive.gref = 100000;
    attack_status("beyond the table", copy(21, 0, 16), GNTST_general_error);
    e->transitive.gref = 22, e->transitive.trans_domid = 999;
    attack_status("to domain 999", copy(21, 0, 16), GNTST_general_error);
    e->transitive.trans_domid = self;
    attack_status("mapped", grant_map((u64)window, GNTMAP_host_map | GNTMAP_readonly, 21).status, GNTST_general_error);
    stays("none is in use", status[21] == 0 && status[22] == 0);
    twin_status("the grant itself", copy(22, 0, 16));
}

void guest_main(void)
{
    u64 frame;
    check(grant_frames(1, &frame) == 0);
    table = page_alloc(), page = page_alloc(), window = page_alloc();
    check(map_page((u64)table, frame << 12 | PTE_P | PTE_RW) == 0);
    check(map_page((u64)window, 0) == 0);
    lists();
    versions();
    parts();
}
