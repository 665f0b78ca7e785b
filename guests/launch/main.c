/*
 * A control domain of one job, for comparing with real Xen: it makes an unprivileged guest of the ELF image
 * given as its ramdisk, copies the guest's console to Xen's, says how the guest ended, and powers off.
 *
 * Command line: mem=MIB vcpus=N -- the guest's own command line
 * The guest's memory is laid out as Xen's usual domain builder does it: image, frame list, start_info,
 * store page, console page, page tables, boot stack, and at least 512 KiB more up to a 4 MiB boundary.
 */
#include "domctl.h"

#include "elf.h"

const char guest_name[] = "launch";

#define MAX_PAGES 65536UL
#define BATCH 512UL

static u64 mfns[MAX_PAGES];
static char window[PAGE_SIZE] __attribute__((aligned(4096)));
static struct domctl ctl;
static u16 domid;

static struct {
    u64 pages, vcpus;
    const char *cmdline;
} wanted = {32 << 8, 1, ""};

static struct {
    u64 start_info, p2m, p2m_pages, p2m_frames, store, console, tables, stack, end; /* guest pfns */
    u32 store_port, console_port;
} plan;

static _Noreturn void fail(const char *what, s64 result)
{
    printf("launch: %s: %s\n", what, error_name(result));
    shutdown(SHUTDOWN_crash);
}

static void must(const char *what, s64 result)
{
    if (result < 0)
        fail(what, result);
}

static void domctl(const char *what, u32 cmd)
{
    ctl.cmd = cmd;
    ctl.interface_version = XEN_DOMCTL_INTERFACE_VERSION;
    ctl.domain = domid;
    must(what, H1(__HYPERVISOR_domctl, &ctl));
}

/* The guest's frame in our window; one at a time, and none may be left there when tables are pinned. */
static void *see_mfn(u64 mfn)
{
    struct mmu_update update = {machine_of(pte_of((u64)window)), mfn << 12 | PTE_P | PTE_RW};
    must("map a guest frame", xen_mmu_update(&update, 1, 0, domid));
    mmuext(MMUEXT_INVLPG_LOCAL, (u64)window, 0);
    return window;
}

static void *see(u64 pfn)
{
    if (pfn >= wanted.pages)
        fail("guest frame", -(s64)pfn);
    return see_mfn(mfns[pfn]);
}

static void copy_in(u64 paddr, const char *from, u64 size)
{
    while (size) {
        u64 offset = paddr & ~PAGE_MASK, part = PAGE_SIZE - offset;
        if (part > size)
            part = size;
        memcpy((char *)see(paddr >> 12) + offset, from, part);
        paddr += part, from += part, size -= part;
    }
}

static u64 number(const char *text)
{
    u64 value = 0;
    while (*text >= '0' && *text <= '9')
        value = value * 10 + (u64)(*text++ - '0');
    return value;
}

static void read_options(void)
{
    for (const char *p = start_info->cmd_line; *p; p++) {
        if (starts_with(p, "mem="))
            wanted.pages = number(p + 4) << 8;
        if (starts_with(p, "vcpus="))
            wanted.vcpus = number(p + 6);
        if (starts_with(p, "-- ")) {
            wanted.cmdline = p + 3;
            break;
        }
    }
    if (wanted.pages > MAX_PAGES)
        fail("too much memory wanted", -E2BIG);
}

/* One entry, as the usual toolstack has it. */
static void set_memory_map(void)
{
    static struct {
        u64 addr, size;
        u32 type;
    } __attribute__((packed)) all;
    struct {
        u16 domid;
        struct {
            u32 nr_entries;
            void *buffer;
        } map;
    } request = {domid, {1, &all}};
    all.size = wanted.pages << 12;
    all.type = 1; /* memory */
    must("set_memory_map", xen_memory_op(XENMEM_set_memory_map, &request));
}

static void create(void)
{
    memset(&ctl, 0, sizeof(ctl));
    ctl.u.create.handle[15] = 1;
    ctl.u.create.max_vcpus = (u32)wanted.vcpus;
    ctl.u.create.max_evtchn_port = 1023;
    ctl.u.create.max_grant_frames = -1;
    ctl.u.create.max_maptrack_frames = -1;
    ctl.u.create.grant_opts = 2;
    domctl("createdomain", XEN_DOMCTL_createdomain);
    domid = ctl.domain;
    ctl.u.max_vcpus.max = (u32)wanted.vcpus;
    domctl("max_vcpus", XEN_DOMCTL_max_vcpus);
    ctl.u.max_mem.max_memkb = (wanted.pages << 2) + 1024;
    domctl("max_mem", XEN_DOMCTL_max_mem);
    set_memory_map();
    for (u64 at = 0; at < wanted.pages; at += BATCH) {
        u64 count = wanted.pages - at < BATCH ? wanted.pages - at : BATCH;
        for (u64 i = 0; i < count; i++)
            mfns[at + i] = at + i;
        struct xen_memory_reservation r = {&mfns[at], count, 0, 0, domid};
        s64 got = xen_memory_op(XENMEM_populate_physmap, &r);
        if (got != (s64)count)
            fail("populate_physmap", got);
    }
}

static u32 offer_port(void)
{
    struct evtchn_alloc_unbound a = {domid, 0, 0};
    must("alloc_unbound", xen_event_channel_op(EVTCHNOP_alloc_unbound, &a));
    return a.port;
}

static u32 take_port(u32 remote)
{
    struct evtchn_bind_interdomain b = {domid, remote, 0};
    must("bind_interdomain", xen_event_channel_op(EVTCHNOP_bind_interdomain, &b));
    return b.local_port;
}

static u64 table_entry(u64 table_pfn, u64 index)
{
    return ((u64 *)see(table_pfn))[index];
}

/* Map pfn at va in the guest's tables, which grow as needed by frames from *fresh on. */
static void map_guest(u64 va, u64 pfn, u64 flags, u64 *fresh)
{
    u64 table = plan.tables;
    for (int level = 4; level > 1; level--) {
        u64 index = va >> (12 + 9 * (level - 1)) & 511;
        u64 entry = table_entry(table, index);
        if (!entry) {
            memset(see(*fresh), 0, PAGE_SIZE);
            entry = mfns[*fresh] << 12 | PTE_TABLE;
            ((u64 *)see(table))[index] = entry;
            ++*fresh;
        }
        table = m2p[(entry & PTE_ADDR) >> 12];
    }
    ((u64 *)see(table))[va >> 12 & 511] = mfns[pfn] << 12 | flags;
}

/* For a range that lies within one GiB: an L3, an L2, and as many L1 as it takes. */
static u64 tables_needed(u64 base, u64 pages)
{
    u64 first = base >> 21, last = (base + (pages << 12) - 1) >> 21;
    return 2 + last - first + 1;
}

static void lay_out(u64 image_pages, const struct image *image)
{
    u64 at = image_pages;
    plan.p2m_pages = (wanted.pages * 8 + PAGE_SIZE - 1) >> 12;
    u64 p2m_inside = image->init_p2m == NO_NOTE ? plan.p2m_pages : 0;
    plan.p2m = at, at += p2m_inside;
    plan.start_info = at++;
    plan.store = at++;
    plan.console = at++;
    plan.tables = at;
    u64 tables = 0, end = 0;
    do {
        tables++;
        end = (at + tables + 1 + 128 + 1023) & ~1023UL;
    } while (1 + tables_needed(image->virt_base, end) > tables);
    plan.stack = at + tables;
    plan.end = end;
    /* A list of its own address goes behind the initial map, and its tables behind it. */
    plan.p2m_frames = p2m_inside ? 0 : plan.p2m_pages + tables_needed(image->init_p2m, plan.p2m_pages);
    if (!p2m_inside)
        plan.p2m = end;
    if (end + plan.p2m_frames > wanted.pages)
        fail("the guest's memory is too small for it, pages", (s64)wanted.pages);
}

static void build_tables(const struct image *image)
{
    u64 fresh = plan.tables + 1, behind = plan.p2m + plan.p2m_pages;
    memset(see(plan.tables), 0, PAGE_SIZE);
    for (u64 pfn = 0; pfn < plan.end; pfn++) {
        int is_table = pfn >= plan.tables && pfn < plan.stack;
        map_guest(image->virt_base + (pfn << 12), pfn, PTE_P | PTE_A | (is_table ? 0 : PTE_RW | PTE_D), &fresh);
    }
    for (u64 i = 0; plan.p2m_frames && i < plan.p2m_pages; i++)
        map_guest(image->init_p2m + (i << 12), plan.p2m + i, PTE_P | PTE_A | PTE_RW | PTE_D, &behind);
}

static void fill_start_info(const struct image *image, u64 shared_info_mfn)
{
    struct start_info *s = memset(see(plan.start_info), 0, PAGE_SIZE);
    memcpy(s->magic, "xen-3.0-x86_64", 15);
    s->nr_pages = wanted.pages;
    s->shared_info = shared_info_mfn << 12;
    s->store_mfn = mfns[plan.store];
    s->store_evtchn = plan.store_port;
    s->console.domU.mfn = mfns[plan.console];
    s->console.domU.evtchn = plan.console_port;
    s->pt_base = image->virt_base + (plan.tables << 12);
    s->nr_pt_frames = plan.stack - plan.tables;
    s->mfn_list = image->virt_base + (plan.p2m << 12);
    if (image->init_p2m != NO_NOTE) {
        s->mfn_list = image->init_p2m;
        s->first_p2m_pfn = plan.p2m;
        s->nr_p2m_frames = plan.p2m_frames;
    }
    memcpy(s->cmd_line, wanted.cmdline, strlen(wanted.cmdline) + 1);
}

static void set_context(const struct image *image)
{
    static struct vcpu_guest_context c;
    c.flags = VGCF_in_kernel | VGCF_online;
    c.user_regs.rip = image->entry;
    c.user_regs.rsp = image->virt_base + ((plan.stack + 1) << 12);
    c.user_regs.rsi = image->virt_base + (plan.start_info << 12);
    c.user_regs.rflags = X86_EFLAGS_IF;
    c.user_regs.cs = FLAT_KERNEL_CS;
    c.user_regs.ss = FLAT_KERNEL_SS;
    c.kernel_ss = FLAT_KERNEL_SS;
    c.kernel_sp = c.user_regs.rsp;
    c.ctrlreg[3] = mfns[plan.tables] << 12;
    ctl.u.context.vcpu = 0;
    ctl.u.context.context = &c;
    domctl("setvcpucontext", XEN_DOMCTL_setvcpucontext);
}

static void build(const char *elf, u64 size)
{
    struct image image;
    const char *wrong = elf_read(elf, size, &image);
    if (wrong)
        fail(wrong, -EINVAL);
    create();
    plan.store_port = offer_port();
    plan.console_port = offer_port();
    lay_out((image.end - image.virt_base + PAGE_SIZE - 1) >> 12, &image);
    elf_load(elf, &image, copy_in);
    if (image.hypercall_page != NO_NOTE) {
        ctl.u.hypercall_init.gmfn = mfns[(image.hypercall_page - image.virt_base) >> 12];
        domctl("hypercall_init", XEN_DOMCTL_hypercall_init);
    }
    for (u64 i = 0; i < plan.p2m_pages; i++)
        memcpy(see(plan.p2m + i), &mfns[i * 512], PAGE_SIZE);
    memset(see(plan.store), 0, PAGE_SIZE);
    memset(see(plan.console), 0, PAGE_SIZE);
    build_tables(&image);
    domctl("getdomaininfo", XEN_DOMCTL_getdomaininfo);
    u64 shared_mfn = ctl.u.info.shared_info_frame;
    fill_start_info(&image, shared_mfn);
    struct shared_info *shared = see_mfn(shared_mfn);
    for (int i = 0; i < 32; i++)
        shared->vcpu_info[i].evtchn_upcall_mask = 1;
    must("unmap the window", map_page((u64)window, 0));
    struct mmuext_op pin = {MMUEXT_PIN_L4_TABLE, mfns[plan.tables], 0};
    must("pin the guest's tables", xen_mmuext_op(&pin, 1, 0, domid));
    set_context(&image);
}

static struct xencons_interface *console;

/* Lines go out whole and marked, since Xen's own messages come between them. */
static char line[512] = "| ";
static u32 line_used = 2;

static void end_line(void)
{
    line[line_used++] = '\n';
    console_write(line, line_used);
    line_used = 2;
}

static void out(char c)
{
    if (c != '\n')
        line[line_used++] = c;
    if (c == '\n' || line_used == sizeof(line) - 1)
        end_line();
}

static void drain(u32 port)
{
    volatile u32 *cons = &console->out_cons, *prod = &console->out_prod;
    struct evtchn_port notify = {port};
    while (*cons != *prod) {
        while (*cons != *prod) {
            out(console->out[*cons % sizeof(console->out)]);
            *cons = *cons + 1;
        }
        xen_event_channel_op(EVTCHNOP_send, &notify);
    }
}

void guest_main(void)
{
    static const char *const reasons[] = {"poweroff", "reboot", "suspend", "crash", "watchdog", "soft_reset"};
    read_options();
    build((const char *)start_info->mod_start, start_info->mod_len);
    u32 port = take_port(plan.console_port);
    take_port(plan.store_port);
    console = see(plan.console);
    domctl("unpausedomain", XEN_DOMCTL_unpausedomain);
    for (;;) {
        struct sched_poll poll = {&port, 1, system_time() + 20000000};
        xen_sched_op(SCHEDOP_poll, &poll);
        clear_bit(shared_info->evtchn_pending, port);
        drain(port);
        domctl("getdomaininfo", XEN_DOMCTL_getdomaininfo);
        if (ctl.u.info.flags & XEN_DOMINF_shutdown)
            break;
    }
    drain(port);
    if (line_used > 2)
        end_line();
    u32 reason = ctl.u.info.flags >> XEN_DOMINF_shutdownshift & 255;
    printf("launch: guest ended: %s\n", reason < ARRAY_SIZE(reasons) ? reasons[reason] : "unknown");
    shutdown(SHUTDOWN_poweroff);
}
