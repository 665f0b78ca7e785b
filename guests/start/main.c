/* The start of day: registers, start_info, the initial page tables and the frame list, as the interface says. */
#include "guest.h"

const char guest_name[] = "start";

static void start_info_page(void)
{
    printf("magic: %s\n", start_info->magic);
    printf("pages: %lu\n", start_info->nr_pages);
    printf("flags: %x\n", start_info->flags);
    printf("shared_info is page-aligned: %d\n", !(start_info->shared_info & ~PAGE_MASK));
    printf("console port: %d, store port: %d\n", start_info->console.domU.evtchn != 0, start_info->store_evtchn != 0);
    printf("store page in our memory: %d\n", mfn_of(va_of_mfn(start_info->store_mfn)) == start_info->store_mfn);
    printf("console page in our memory: %d\n",
           mfn_of(va_of_mfn(start_info->console.domU.mfn)) == start_info->console.domU.mfn);
    printf("command line: \"%s\"\n", start_info->cmd_line);
    printf("ramdisk: %lx %lu\n", start_info->mod_start, start_info->mod_len);
    printf("first_p2m_pfn: %lu, nr_p2m_frames: %lu\n", start_info->first_p2m_pfn, start_info->nr_p2m_frames);
}

static void registers(void)
{
    printf("stack is in the initial map: %d, aligned: %d\n",
           boot_rsp > (u64)image_end && boot_rsp < (u64)image_end + (16UL << 20), !(boot_rsp & ~PAGE_MASK));
    printf("rflags: IF=%d, other bits: %lx\n", !!(boot_rflags & X86_EFLAGS_IF), boot_rflags & 0x7ffd00 & ~0x200UL);
    printf("events masked: %d\n", vcpu0->evtchn_upcall_mask);
    u16 cs, ds, es, fs, gs, ss;
    asm volatile("movw %%cs, %0; movw %%ds, %1; movw %%es, %2; movw %%fs, %3; movw %%gs, %4; movw %%ss, %5"
                 : "=r"(cs), "=r"(ds), "=r"(es), "=r"(fs), "=r"(gs), "=r"(ss));
    printf("cs=%x ss=%x ds=%x es=%x fs=%x gs=%x\n", cs, ss, ds, es, fs, gs);
    for (int i = 1; i < 32; i++)
        if (!shared_info->vcpu_info[i].evtchn_upcall_mask)
            printf("vcpu_info %d: events not masked\n", i);
}

static void frame_list(void)
{
    u64 wrong = 0, doubled = 0;
    for (u64 pfn = 0; pfn < start_info->nr_pages; pfn++) {
        wrong += m2p[p2m[pfn]] != pfn;
        for (u64 near = 1; near < 4 && near <= pfn; near++)
            doubled += p2m[pfn] == p2m[pfn - near];
    }
    printf("frames whose machine-to-phys entry is wrong: %lu, doubled: %lu\n", wrong, doubled);
    check(!wrong && !doubled);
}

static void tables(void)
{
    u64 pages = 0, readonly = 0, wrong = 0, user = 0;
    u64 first_table = 0, last_table = 0, last = 0;
    for (u64 va = VIRT_BASE; va < VIRT_BASE + (256UL << 20); va += PAGE_SIZE) {
        u64 *l2 = entry_of(va, 2);
        if (!l2 || !(*l2 & PTE_P)) {
            va += (2UL << 20) - PAGE_SIZE;
            continue;
        }
        u64 pte = *entry_of(va, 1);
        if (!(pte & PTE_P))
            continue;
        pages++;
        last = va;
        u64 mfn = (pte & PTE_ADDR) >> 12;
        /* Our own shared_info mapping is no frame of the list. */
        if (mfn == start_info->shared_info >> 12)
            continue;
        wrong += p2m[(va - VIRT_BASE) >> 12] != mfn;
        user += !(pte & PTE_US);
        if (!(pte & PTE_RW)) {
            readonly++;
            first_table = first_table ? first_table : va;
            last_table = va;
        }
    }
    printf("entries that do not follow the frame list: %lu\n", wrong);
    printf("pages without the user bit that Xen sets: %lu\n", user);
    printf("read-only pages are the page tables, together: %d\n",
           first_table == start_info->pt_base && readonly == start_info->nr_pt_frames &&
               last_table - first_table == (readonly - 1) * PAGE_SIZE);
    printf("order: image, frame list, start_info, store, console, tables, stack: %d %d %d %d %d\n",
           (u64)p2m >= (u64)image_end, (u64)start_info > (u64)p2m,
           (u64)va_of_mfn(start_info->console.domU.mfn) > (u64)start_info,
           start_info->pt_base > (u64)va_of_mfn(start_info->console.domU.mfn),
           boot_rsp == start_info->pt_base + start_info->nr_pt_frames * PAGE_SIZE + PAGE_SIZE);
    printf("the map ends on a 4 MiB boundary: %d\n", !((last + PAGE_SIZE) & 0x3fffff));
    printf("slack behind the stack of at least 512 KiB: %d\n", last + PAGE_SIZE - boot_rsp >= 512 << 10);
    printf("pages=%lu: %d\n", (last + PAGE_SIZE - VIRT_BASE) >> 12, pages == (last + PAGE_SIZE - VIRT_BASE) >> 12);
    check(!wrong);
}

static void bss(void)
{
    extern char boot_stack[];
    u64 dirty = 0;
    for (char *p = boot_stack; p < boot_stack + 4096; p++)
        dirty += *p != 0;
    printf("bss begins as zeros: %d\n", !dirty);
}

static void machine(void)
{
    u16 self = DOMID_SELF;
    s64 current = xen_memory_op(XENMEM_current_reservation, &self);
    s64 most = xen_memory_op(XENMEM_maximum_reservation, &self);
    printf("current reservation: %ld pages more than start_info says\n", current - (s64)start_info->nr_pages);
    printf("maximum reservation is at least that: %d\n", most >= current);
    struct {
        u64 start, end, max_mfn;
    } mapping;
    expect_result("machphys_mapping", xen_memory_op(XENMEM_machphys_mapping, &mapping), 0);
    printf("machine-to-phys at %lx\n", mapping.start);
    struct xen_feature_info features = {0, 0};
    expect_result("get_features", xen_version(XENVER_get_features, &features), 0);
    printf("features: %x\n", features.submap);
}

void guest_main(void)
{
    start_info_page();
    registers();
    bss();
    frame_list();
    tables();
    machine();
}
