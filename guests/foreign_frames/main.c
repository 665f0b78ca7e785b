/* Frames of others: the hypervisor's, other domains', devices', nobody's; and the operations that name a domain. */
#include "grant.h"

const char guest_name[] = "foreign_frames";

static u64 *window;

static s64 map_frame(u64 frame, u64 flags, u16 domain)
{
    struct mmu_update update = {machine_of(pte_of((u64)window)), frame << 12 | flags};
    s64 result = xen_mmu_update(&update, 1, 0, domain);
    if (result == 0)
        check(map_page((u64)window, 0) == 0);
    return result;
}

static int ours(u64 frame)
{
    u64 pfn = m2p[frame];
    return pfn < start_info->nr_pages && p2m[pfn] == frame;
}

static void every_frame(void)
{
    u64 end = (u64)xen_memory_op(XENMEM_maximum_ram_page, 0), shared = start_info->shared_info >> 12, grants = 0;
    check(grant_frames(1, &grants) == 0); /* the grant table is the hypervisor's, but shared with us */
    int mapped = 0, tried = 0, missed = 0;
    rule("of all machine frames a guest maps only its own: -EPERM");
    for (u64 frame = 0; frame < end; frame += 5) {
        if (frame == shared || frame == grants)
            continue;
        if (ours(frame)) {
            missed += frame % 3 == 0 && map_frame(frame, PTE_P, DOMID_SELF) != 0;
            continue;
        }
        mapped += map_frame(frame, PTE_P, DOMID_SELF) == 0;
        mapped += map_frame(frame, PTE_P | PTE_RW, DOMID_SELF) == 0;
        tried++;
    }
    stays("none of the others, a thousand or more, was mapped", mapped == 0 && tried > 1000);
    stays("each of ours could be", missed == 0);
    twin("the grant table", map_frame(grants, PTE_P | PTE_RW, DOMID_SELF));
    twin("the shared info page", map_frame(shared, PTE_P | PTE_RW, DOMID_SELF));
}

static void devices(void)
{
    static const struct {
        const char *name;
        u64 frame;
    } places[] = {
        {"the local APIC", 0xfee00},
        {"the I/O APIC", 0xfec00},
        {"beyond memory", 0xfffff},
        {"beyond the address width", 0xfffffffffe},
        {"the frame of all ones", 0xffffffffff},
    };
    rule("nor any frame of a device: -EPERM");
    for (u64 i = 0; i < ARRAY_SIZE(places); i++) {
        s64 expected = places[i].frame == 0xffffffffff ? -EINVAL : -EPERM;
        attack(places[i].name, map_frame(places[i].frame, PTE_P, DOMID_SELF), expected);
        attack(places[i].name, map_frame(places[i].frame, PTE_P | PTE_RW | PTE_PCD, DOMID_SELF), -EINVAL);
    }
    twin("our own page", map_frame(mfn_of(window), PTE_P, DOMID_SELF));
}

static void named_domains(void)
{
    static const struct {
        const char *name;
        u16 domain;
        s64 error;
    } names[] = {
        {"domain 0", 0, -EPERM},           {"domain 999", 999, -ESRCH},       {"DOMID_XEN", DOMID_XEN, -EPERM},
        {"DOMID_COW", 0x7ff3, -ESRCH},     {"DOMID_INVALID", 0x7ff4, -ESRCH}, {"DOMID_IDLE", 0x7fff, -ESRCH},
    };
    struct mmuext_op flush = {MMUEXT_TLB_FLUSH_LOCAL, 0, 0}, pinning = {MMUEXT_PIN_L1_TABLE, mfn_of(window), 0};
    u64 pte = mfn_of(window) << 12 | PTE_P;
    rule("a domain without privilege names only itself");
    for (u64 i = 0; i < ARRAY_SIZE(names); i++) {
        char label[64];
        struct mmu_update update = {machine_of(pte_of((u64)window)), pte};
        u16 dom = names[i].domain;
        snprintf(label, sizeof(label), "mmu_update, frames of %s", names[i].name);
        attack(label, xen_mmu_update(&update, 1, 0, dom), names[i].error);
        snprintf(label, sizeof(label), "update_va_mapping_otherdomain, %s", names[i].name);
        attack(label, H4(__HYPERVISOR_update_va_mapping_otherdomain, window, pte, 0, dom), names[i].error);
        snprintf(label, sizeof(label), "mmuext_op flush, %s", names[i].name);
        attack(label, xen_mmuext_op(&flush, 1, 0, dom), names[i].error);
        snprintf(label, sizeof(label), "mmuext_op pin, %s", names[i].name);
        attack(label, xen_mmuext_op(&pinning, 1, 0, dom), names[i].error);
    }
    twin("update_va_mapping_otherdomain, ourselves",
         H4(__HYPERVISOR_update_va_mapping_otherdomain, window, pte, 0, DOMID_SELF));
    struct mmu_update update = {machine_of(pte_of((u64)window)), pte};
    twin("mmu_update, frames of ourselves", xen_mmu_update(&update, 1, 0, DOMID_SELF));
    rule("nor another domain's page tables, named in the upper half of the domain argument");
    /* The upper 16 bits name the domain whose tables are changed, plus one. */
    attack("tables of domain 0", H4(__HYPERVISOR_mmu_update, &update, 1, 0, 1 << 16 | DOMID_SELF), -EPERM);
    attack("tables of domain 999", H4(__HYPERVISOR_mmu_update, &update, 1, 0, 1000 << 16 | DOMID_SELF), -ESRCH);
    attack("tables of DOMID_SELF, which is no number", H4(__HYPERVISOR_mmu_update, &update, 1, 0, (DOMID_SELF + 1U) << 16 | DOMID_SELF), -ESRCH);
    twin("tables of ourselves, by number", H4(__HYPERVISOR_mmu_update, &update, 1, 0, (own_domid() + 1U) << 16 | DOMID_SELF));
}

static void machine_to_phys(void)
{
    u64 frame = mfn_of(window), other = frame;
    u64 end = (u64)xen_memory_op(XENMEM_maximum_ram_page, 0);
    for (u64 at = 0; at < end && other == frame; at++)
        if (!ours(at) && at != start_info->shared_info >> 12 && map_frame(at, PTE_P, DOMID_SELF) < 0)
            other = at;
    struct mmu_update update = {frame << 12 | MMU_MACHPHYS_UPDATE, m2p[frame]};
    rule("the machine-to-phys table is written for one's own frames only: -EINVAL; and takes no reference");
    for (int i = 0; i < 100; i++)
        check(xen_mmu_update(&update, 1, 0, DOMID_SELF) == 0);
    twin("our own frame, a hundred times and once more", xen_mmu_update(&update, 1, 0, DOMID_SELF));
    u64 before = m2p[other];
    update = (struct mmu_update){other << 12 | MMU_MACHPHYS_UPDATE, 0x1234};
    attack("another's frame", xen_mmu_update(&update, 1, 0, DOMID_SELF), -EINVAL);
    update.ptr = 0xffffffUL << 12 | MMU_MACHPHYS_UPDATE;
    attack("a frame beyond memory", xen_mmu_update(&update, 1, 0, DOMID_SELF), -EINVAL);
    update.ptr = frame << 12 | MMU_MACHPHYS_UPDATE;
    attack("for domain 0", xen_mmu_update(&update, 1, 0, 0), -EPERM);
    stays("the other's entry", m2p[other] == before);
    TRY("movq $0, (%0)", ::"r"(&m2p[frame]) : "memory");
    attack_faults("a store into the table", 14, 3);
    check(map_page((u64)window, 0) == 0);
    struct xen_memory_reservation r = {&frame, 1, 0, 0, DOMID_SELF};
    u64 pfn = m2p[frame];
    s64 result = xen_memory_op(XENMEM_decrease_reservation, &r);
    twin_is("the frame can be given back", result, 1);
    stays("it is nobody's", m2p[frame] != pfn);
}

void guest_main(void)
{
    window = page_alloc();
    check(map_page((u64)window, 0) == 0);
    every_frame();
    devices();
    named_domains();
    machine_to_phys();
}
