/* Grants of the domain to itself. */
#include "grant.h"

u16 own_domid(void)
{
    static u16 self = DOMID_SELF;
    if (self != DOMID_SELF)
        return self;
    struct evtchn_alloc_unbound a = {DOMID_SELF, DOMID_SELF, 0};
    check(xen_event_channel_op(EVTCHNOP_alloc_unbound, &a) == 0);
    struct evtchn_bind_interdomain b = {DOMID_SELF, a.port, 0};
    check(xen_event_channel_op(EVTCHNOP_bind_interdomain, &b) == 0);
    struct evtchn_status s = {.dom = DOMID_SELF, .port = b.local_port};
    check(xen_event_channel_op(EVTCHNOP_status, &s) == 0);
    struct evtchn_port close = {a.port};
    check(xen_event_channel_op(EVTCHNOP_close, &close) == 0);
    close.port = b.local_port;
    check(xen_event_channel_op(EVTCHNOP_close, &close) == 0);
    return self = s.u.interdomain.dom;
}

s64 grant_op(u32 cmd, void *arg, u32 count)
{
    return H3(__HYPERVISOR_grant_table_op, cmd, arg, count);
}

s64 grant_frames(u32 count, u64 *list)
{
    struct {
        u16 dom;
        u32 nr_frames;
        short status;
        u64 *frame_list;
    } s = {DOMID_SELF, count, 99, list};
    check(grant_op(GNTTABOP_setup_table, &s, 1) == 0);
    return s.status;
}

struct grant_map grant_map(u64 address, u32 flags, u32 ref)
{
    struct grant_map m = {address, flags, ref, own_domid(), 99, 0, 0};
    check(grant_op(GNTTABOP_map_grant_ref, &m, 1) == 0);
    return m;
}

s64 grant_unmap(u64 address, u64 bus_address, u32 handle)
{
    struct grant_unmap u = {address, bus_address, handle, 99};
    check(grant_op(GNTTABOP_unmap_grant_ref, &u, 1) == 0);
    return u.status;
}

void grant_v1(struct grant_entry_v1 *entry, u16 flags, u64 frame)
{
    entry->flags = 0;
    entry->domid = own_domid();
    entry->frame = (u32)frame;
    entry->flags = flags;
}
