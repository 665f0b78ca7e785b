/* Grant tables, for kernels that attack them: the domain grants to itself. */
#ifndef GRANT_H
#define GRANT_H

#include "attack.h"

#define GNTTABOP_map_grant_ref 0
#define GNTTABOP_unmap_grant_ref 1
#define GNTTABOP_setup_table 2
#define GNTTABOP_transfer 4
#define GNTTABOP_copy 5
#define GNTTABOP_query_size 6
#define GNTTABOP_unmap_and_replace 7
#define GNTTABOP_set_version 8
#define GNTTABOP_get_status_frames 9
#define GNTTABOP_get_version 10
#define GNTTABOP_swap_grant_ref 11
#define GNTTABOP_cache_flush 12

#define GNTMAP_device_map 1
#define GNTMAP_host_map 2
#define GNTMAP_readonly 4
#define GNTMAP_application_map 8
#define GNTMAP_contains_pte 16

#define GTF_permit_access 1
#define GTF_accept_transfer 2
#define GTF_transitive 3
#define GTF_readonly 4
#define GTF_reading 8
#define GTF_writing 16
#define GTF_sub_page 256

#define GNTCOPY_source_gref 1
#define GNTCOPY_dest_gref 2

/* Statuses */
#define GNTST_okay 0
#define GNTST_general_error -1
#define GNTST_bad_domain -2
#define GNTST_bad_gntref -3
#define GNTST_bad_handle -4
#define GNTST_bad_virt_addr -5
#define GNTST_bad_dev_addr -6
#define GNTST_permission_denied -8
#define GNTST_bad_page -9
#define GNTST_bad_copy_arg -10

struct grant_entry_v1 {
    volatile u16 flags;
    u16 domid;
    u32 frame;
};
union grant_entry_v2 {
    struct {
        volatile u16 flags;
        u16 domid;
        u32 pad;
        u64 frame;
    } full;
    struct {
        volatile u16 flags;
        u16 domid, page_off, length;
        u64 frame;
    } sub_page;
    struct {
        volatile u16 flags;
        u16 domid, trans_domid, pad;
        u32 gref, pad1;
    } transitive;
};

struct grant_map {
    u64 host_addr;
    u32 flags, ref;
    u16 dom;
    short status;
    u32 handle;
    u64 dev_bus_addr;
};
struct grant_unmap {
    u64 host_addr, dev_bus_addr;
    u32 handle;
    short status;
};
struct grant_copy_end {
    u64 u; /* a reference or a frame */
    u16 domid, offset;
};
struct grant_copy {
    struct grant_copy_end source, dest;
    u16 len, flags;
    short status;
};

u16 own_domid(void); /* never print it */
s64 grant_op(u32 cmd, void *arg, u32 count);
s64 grant_frames(u32 count, u64 *list); /* setup_table: its status */
struct grant_map grant_map(u64 address, u32 flags, u32 ref);
s64 grant_unmap(u64 address, u64 bus_address, u32 handle); /* its status */
void grant_v1(struct grant_entry_v1 *entry, u16 flags, u64 frame);

#endif
