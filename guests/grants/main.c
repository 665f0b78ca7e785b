/* The grant table's set-up: sizes, frames, versions, and refusals. */
#include "grant.h"

const char guest_name[] = "grants";

static s64 op(u32 cmd, void *arg, u32 count)
{
    return H3(__HYPERVISOR_grant_table_op, cmd, arg, count);
}

struct setup_table {
    u16 dom;
    u32 nr_frames;
    signed short status;
    u64 *frame_list;
};

static s64 setup(u16 dom, u32 frames, u64 *list, signed short *status)
{
    struct setup_table s = {dom, frames, 99, list};
    s64 result = op(GNTTABOP_setup_table, &s, 1);
    *status = s.status;
    return result;
}

static void show_setup(const char *label, u16 dom, u32 frames, u64 *list)
{
    signed short status;
    s64 result = setup(dom, frames, list, &status);
    printf("%s: %s status %d\n", label, error_name(result), status);
}

static void query(u16 dom)
{
    struct {
        u16 dom;
        u32 nr_frames, max_nr_frames;
        signed short status;
    } q = {dom, 0, 0, 99};
    printf("query_size: %s", error_name(op(GNTTABOP_query_size, &q, 1)));
    printf(" status %d frames %u of %u\n", q.status, q.nr_frames, q.max_nr_frames);
}

static void tables(void)
{
    static u64 list[128];
    query(DOMID_SELF);
    query(999);
    query(0);
    show_setup("no frames", DOMID_SELF, 0, list);
    query(DOMID_SELF);
    show_setup("one frame", DOMID_SELF, 1, list);
    query(DOMID_SELF);
    u64 first = list[0];
    show_setup("three frames", DOMID_SELF, 3, list);
    printf("the first is the same: %d, all different: %d\n", list[0] == first, list[1] != first && list[2] != list[1]);
    query(DOMID_SELF);
    show_setup("64 frames", DOMID_SELF, 64, list);
    show_setup("65 frames", DOMID_SELF, 65, list);
    show_setup("for domain 999", 999, 1, list);
    show_setup("for domain 0", 0, 1, list);
    show_setup("list not mapped", DOMID_SELF, 1, (u64 *)0x12345000);
    /* The frames are Xen's, given to us to map and write. */
    struct grant_entry_v1 *table = page_alloc();
    expect_result("map the first frame", map_page((u64)table, first << 12 | PTE_P | PTE_RW), 0);
    int used = 0;
    for (int i = 0; i < 512; i++)
        used += table[i].flags != 0;
    printf("entries in use: %d\n", used);
    printf("entry 0: flags %x domid %u\n", table[0].flags, table[0].domid);
    printf("entry 1: flags %x domid %u\n", table[1].flags, table[1].domid);
    table[20] = (struct grant_entry_v1){1, 0, (u32)mfn_of(page_alloc())};
    printf("an entry is written: flags %x\n", table[20].flags);
    table[20].flags = 0;
    show_setup("fewer frames again", DOMID_SELF, 1, list);
    query(DOMID_SELF);
}

static void versions(void)
{
    struct {
        u16 dom, pad;
        u32 version;
    } get = {DOMID_SELF, 0, 0};
    printf("get_version: %s", error_name(op(GNTTABOP_get_version, &get, 1)));
    printf(" %u\n", get.version);
    for (u32 v = 0; v < 4; v++) {
        u32 version = v;
        printf("set_version %u: %s", v, error_name(op(GNTTABOP_set_version, &version, 1)));
        printf(" says %u\n", version);
        get.version = 0;
        op(GNTTABOP_get_version, &get, 1);
        printf("get_version: %u\n", get.version);
        struct {
            u32 nr_frames;
            u16 dom;
            signed short status;
            u64 *frame_list;
        } st;
        u64 list[4];
        st.nr_frames = 1, st.dom = DOMID_SELF, st.status = 99, st.frame_list = list;
        printf("get_status_frames: %s", error_name(op(GNTTABOP_get_status_frames, &st, 1)));
        printf(" status %d\n", st.status);
    }
    u32 one = 1;
    printf("back to version 1: %s\n", error_name(op(GNTTABOP_set_version, &one, 1)));
}

static void refusals(void)
{
    static char zero[64];
    for (u32 cmd = 0; cmd < 14; cmd++) {
        memset(zero, 0xff, sizeof(zero));
        printf("operation %u: bad pointer: %s", cmd, error_name(op(cmd, (void *)0x12345000, 1)));
        printf(", none: %s", error_name(op(cmd, zero, 0)));
        printf(", negative count: %s\n", error_name(op(cmd, zero, 0x80000000)));
    }
}

void guest_main(void)
{
    tables();
    versions();
    refusals();
}
