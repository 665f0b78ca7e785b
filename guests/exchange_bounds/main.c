/* XENMEM_exchange: lists that lie outside the guest, overflow, or do not match; no frame moves, nothing is written. */
#include "attack.h"

const char guest_name[] = "exchange_bounds";

#define XEN_RANGE 0xffff830000000000UL

struct exchange {
    struct xen_memory_reservation in, out;
    u64 nr_exchanged;
};

static u64 in_list[4], out_list[4];
static char *page;

static struct exchange good(void)
{
    in_list[0] = mfn_of(page);
    out_list[0] = ((u64)page - VIRT_BASE) >> 12;
    return (struct exchange){
        {in_list, 1, 0, 0, DOMID_SELF},
        {out_list, 1, 0, 0, DOMID_SELF},
        0,
    };
}

static s64 go(struct exchange *e)
{
    return xen_memory_op(XENMEM_exchange, e);
}

static void untouched(void)
{
    stays("the frame is ours, where it was", m2p[mfn_of(page)] == ((u64)page - VIRT_BASE) >> 12 &&
                                                  out_list[0] == ((u64)page - VIRT_BASE) >> 12 && in_list[0] == mfn_of(page));
}

static void swap(const char *label, struct exchange *e)
{
    u64 pfn = ((u64)page - VIRT_BASE) >> 12, old = mfn_of(page);
    twin(label, go(e));
    stays("one is exchanged", e->nr_exchanged == 1 && out_list[0] != pfn && m2p[out_list[0]] == pfn);
    p2m[pfn] = out_list[0];
    attack("mapping the frame that was given away", map_page((u64)page, old << 12 | PTE_P | PTE_RW), -EBUSY);
    twin("mapping the frame that was got", page_writable(page));
    check(map_page((u64)page, 0) == 0);
}

static void where_lists_are(void)
{
    struct exchange e = good();
    rule("both lists are the guest's own memory, at every index that is used: -EFAULT");
    e.out.extent_start = (u64 *)XEN_RANGE;
    attack("the output list in the hypervisor's range", go(&e), -EFAULT);
    untouched();
    e = good(), e.in.extent_start = (u64 *)XEN_RANGE;
    attack("the input list in the hypervisor's range", go(&e), -EFAULT);
    e = good(), e.out.extent_start = (u64 *)MACH2PHYS_VIRT_START;
    attack("the output list in the machine-to-phys table", go(&e), -EFAULT);
    untouched();
    e = good();
    e.nr_exchanged = (XEN_RANGE - (u64)0x1000) / 8;
    e.in.nr_extents = e.out.nr_extents = e.nr_exchanged + 1;
    e.in.extent_start = e.out.extent_start = (u64 *)0x1000;
    attack("an index that leads from the guest's range into the hypervisor's", go(&e), -EFAULT);
    untouched();
    e = good(), e.nr_exchanged = 5;
    attack("more exchanged than there are", go(&e), -EINVAL);
    e = good(), e.in.extent_start = (u64 *)0x12345000;
    attack("the input list not mapped", go(&e), -EFAULT);
    attack("the structure not mapped", xen_memory_op(XENMEM_exchange, (void *)0x12345000), -EFAULT);
    attack("the structure in the hypervisor's range", xen_memory_op(XENMEM_exchange, (void *)XEN_RANGE), -EFAULT);
    untouched();
    e = good();
    check(map_page((u64)page, 0) == 0);
    swap("both in the guest's range", &e);
}

static void sizes(void)
{
    struct exchange e = good();
    rule("the sizes of both lists match and do not overflow: -EINVAL; orders are limited: -EPERM");
    e.in.nr_extents = 2;
    attack("two for one", go(&e), -EINVAL);
    e = good(), e.in.nr_extents = 1UL << 63, e.in.extent_order = 1, e.out.nr_extents = 0;
    attack("a size that wraps to nothing", go(&e), -EINVAL);
    e = good(), e.in.nr_extents = (1UL << 55) + 1, e.in.extent_order = 9, e.out.nr_extents = 512;
    attack("a size that wraps to the other's", go(&e), -EINVAL);
    e = good(), e.out.extent_order = 1;
    attack("one page for two", go(&e), -EINVAL);
    e = good(), e.out.extent_order = 32;
    attack("output order 32", go(&e), -EPERM);
    e = good(), e.in.extent_order = 64;
    attack("input order 64", go(&e), -EPERM);
    e = good(), e.in.extent_order = 0xffffffff, e.out.extent_order = 0xffffffff;
    attack("orders of all ones", go(&e), -EPERM);
    untouched();
    e = good();
    swap("one for one", &e);
}

static void owners(void)
{
    struct exchange e = good();
    rule("a guest exchanges its own frames only, and none that is in use");
    e.in.domid = 0;
    attack("one of domain 0 for ours", go(&e), -EINVAL);
    e.out.domid = 0;
    attack("both of domain 0", go(&e), -EPERM);
    e.in.domid = e.out.domid = 999;
    attack("both of no domain", go(&e), -ESRCH);
    e = good(), in_list[0] = 0xffffff;
    attack("a frame beyond memory", go(&e), -EINVAL);
    e = good(), in_list[0] = mfn_of((void *)kernel_l4);
    attack("a page table", go(&e), -EINVAL);
    stays("nothing is exchanged", e.nr_exchanged == 0);
    check(page_writable(page) == 0);
    e = good();
    attack("a frame that is mapped", go(&e), -EINVAL);
    stays("nothing is exchanged", e.nr_exchanged == 0);
    untouched();
    check(map_page((u64)page, 0) == 0);
    e = good();
    swap("the same, unmapped", &e);
    e = good(), e.nr_exchanged = 1;
    twin("all exchanged already", go(&e));
    untouched();
}

void guest_main(void)
{
    page = page_alloc();
    where_lists_are();
    sizes();
    owners();
}
