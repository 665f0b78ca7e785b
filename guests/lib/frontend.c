/* What frontends have in common. */
#include "frontend.h"

#define XS_READ 2
#define XS_WRITE 11
#define XS_ERROR 16

struct xs_header {
    u32 type, id, transaction, length;
};
struct xs_page {
    char requests[1024], replies[1024];
    volatile u32 req_cons, req_prod, rsp_cons, rsp_prod;
};

struct grant_entry_v1 *grant_entries;
u32 frontend_port;
static const char *directory;

void wait_a_little(void)
{
    sleep_until(system_time() + 200000);
}

static void store_put(struct xs_page *page, const void *bytes, u32 length)
{
    for (u32 i = 0; i < length; i++) {
        while (page->req_prod - page->req_cons == sizeof page->requests)
            wait_a_little();
        page->requests[page->req_prod % sizeof page->requests] = ((const char *)bytes)[i];
        asm volatile("" ::: "memory");
        page->req_prod++;
    }
}

static void store_take(struct xs_page *page, void *bytes, u32 length)
{
    for (u32 i = 0; i < length; i++) {
        while (page->rsp_prod == page->rsp_cons)
            wait_a_little();
        ((char *)bytes)[i] = page->replies[page->rsp_cons % sizeof page->replies];
        asm volatile("" ::: "memory");
        page->rsp_cons++;
    }
}

/* Ask xenstore; the reply's text, or an empty one for an error. */
static const char *store(u32 type, const char *path, const char *value)
{
    static char reply[1100];
    struct xs_page *page = va_of_mfn(start_info->store_mfn);
    struct evtchn_port send = {start_info->store_evtchn};
    u32 name = strlen(path) + 1, rest = value ? strlen(value) : 0;
    struct xs_header header = {type, 1, 0, name + rest};
    store_put(page, &header, sizeof header);
    store_put(page, path, name);
    store_put(page, value, rest);
    xen_event_channel_op(EVTCHNOP_send, &send);
    store_take(page, &header, sizeof header);
    store_take(page, reply, header.length);
    reply[header.type == XS_ERROR ? 0 : header.length] = 0;
    return reply;
}

const char *device_node(const char *name)
{
    char path[120];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    return store(XS_READ, path, 0);
}

void publish(const char *name, u32 value)
{
    char path[120], text[16];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    snprintf(text, sizeof text, "%u", value);
    store(XS_WRITE, path, text);
}

int backend_state(void)
{
    static char path[120];
    if (!path[0])
        snprintf(path, sizeof path, "%s/state", device_node("backend"));
    return store(XS_READ, path, 0)[0] - '0';
}

void wait_for_backend(int state)
{
    u64 end = system_time() + PATIENCE;
    while (backend_state() != state && system_time() < end)
        wait_a_little();
    check(backend_state() == state);
}

void grant_backend(u32 ref, const void *page)
{
    grant_entries[ref].flags = 0;
    grant_entries[ref].domid = 0;
    grant_entries[ref].frame = (u32)mfn_of(page);
    grant_entries[ref].flags = GTF_permit_access;
}

void notify_backend(void)
{
    struct evtchn_port event = {frontend_port};
    xen_event_channel_op(EVTCHNOP_send, &event);
}

u64 random_number(void)
{
    static u64 state = 88172645463325252UL;
    state ^= state << 13;
    state ^= state >> 7;
    return state ^= state << 17;
}

void frontend_open(const char *device)
{
    static u64 frames[1];
    struct evtchn_alloc_unbound unbound = {DOMID_SELF, 0, 0};
    directory = device;
    check(grant_frames(1, frames) == 0);
    grant_entries = page_alloc();
    check(map_page((u64)grant_entries, frames[0] << 12 | PTE_P | PTE_RW) == 0);
    check(xen_event_channel_op(EVTCHNOP_alloc_unbound, &unbound) == 0);
    frontend_port = unbound.port;
}
