/* update_descriptor and set_gdt on every kind of descriptor: which are taken, which are changed, and how. */
#include "attack.h"

const char guest_name[] = "descriptor_values";

static u64 *table; /* a descriptor table in use */

static s64 set_gdt(u64 frame, u32 entries)
{
    return H2(__HYPERVISOR_set_gdt, &frame, entries);
}

static s64 update(u64 value)
{
    return H2(__HYPERVISOR_update_descriptor, machine_of(&table[8]), value);
}

/* A digest that depends on every value and on their order. */
static u64 mix(u64 digest, u64 value)
{
    digest = (digest ^ value) * 0x9e3779b97f4a7c15UL;
    return digest ^ digest >> 29;
}

/* The 16 bits from 40 on: type, S, DPL, P, limit's top, AVL, L, D, G. */
static u64 descriptor(u64 type, u64 dpl, u64 present, u64 flags, u64 body)
{
    return body | type << 40 | dpl << 45 | present << 47 | flags << 52;
}

static void one_type(u64 type, const char *name)
{
    static const u64 bodies[] = {0, 0x000000000000ffff, 0xff0f00ffffffffff, 0x00000000e0330000, 0x00000000e0080000,
                                 0x0000000100100000};
    u64 refused = 0, kept = 0, changed = 0, low = 0, digest = 0;
    for (u64 i = 0; i < 2 * 4 * 16 * ARRAY_SIZE(bodies); i++) {
        u64 body = bodies[i / 128], present = i / 64 % 2, dpl = i / 16 % 4;
        u64 value = descriptor(type, dpl, present, i % 16, body);
        check(update(0) == 0);
        s64 result = update(value);
        u64 now = table[8];
        refused += result != 0, kept += !result && now == value, changed += !result && now != value;
        low += now >> 47 & 1 && now >> 44 & 1 && (now >> 45 & 3) != 3;
        digest = mix(mix(digest, (u64)result), now);
        check(result == 0 || (result == -EINVAL && now == 0));
    }
    printf("  %s: refused %lu, kept %lu, changed %lu, digest %lx\n", name, refused, kept, changed, digest);
    check(low == 0);
}

static void values(void)
{
    char name[32];
    rule("each descriptor is refused, taken or raised by its type, and no segment stays below privilege 3");
    for (u64 type = 0; type < 32; type++) {
        snprintf(name, sizeof(name), type < 16 ? "system, type %lu" : "segment, type %lu", type % 16);
        one_type(type, name);
    }
}

/* The same rules hold for a frame that becomes a table, all its descriptors at once. */
static void tables(void)
{
    u64 *fresh = table_alloc(), good = 0, refused = 0, digest = 0;
    rule("a frame becomes a table if every descriptor in it may be one, and the same changes are made to it");
    check(page_writable(fresh) == 0);
    for (u64 type = 0; type < 32; type++)
        for (u64 dpl = 0; dpl < 4; dpl++) {
            memset(fresh, 0, PAGE_SIZE);
            fresh[511] = descriptor(type, dpl, 1, 10, type == 12 ? 0xe0330000 : 0xffff);
            check(page_readonly(fresh) == 0);
            s64 result = set_gdt(mfn_of(fresh), 512);
            good += result == 0, refused += result != 0;
            digest = mix(mix(digest, (u64)result), fresh[511]);
            check(set_gdt(mfn_of(table), 512) == 0);
            check(page_writable(fresh) == 0);
        }
    printf("  tables: %lu taken, %lu refused, digest %lx\n", good, refused, digest);
    memset(fresh, 0, PAGE_SIZE);
    for (u64 i = 0; i < 511; i++)
        fresh[i] = 0x00cf93000000ffff;
    fresh[511] = descriptor(9, 0, 1, 0, 0x67);
    check(page_readonly(fresh) == 0);
    attack("a task state segment behind 511 segments", set_gdt(mfn_of(fresh), 512), -EINVAL);
    attack("the same, with one entry in use", set_gdt(mfn_of(fresh), 1), -EINVAL);
    twin("may be written afterwards", page_writable(fresh));
    fresh[511] = 0;
    check(page_readonly(fresh) == 0);
    twin("without it", set_gdt(mfn_of(fresh), 512));
    check(set_gdt(mfn_of(table), 512) == 0);
}

static void bounds(void)
{
    static const u32 counts[] = {0, 1, 511, 512};
    rule("whole frames are in use, however many of their entries were asked for");
    check(update(0) == 0);
    for (u64 i = 0; i < ARRAY_SIZE(counts); i++) {
        check(set_gdt(mfn_of(table), counts[i]) == 0);
        TRY("movw %0, %%es", ::"r"((u16)(511 << 3 | 3)));
        printf("  %u entries, the last of the frame: %s(%lx)\n", counts[i], vector_name(fault.vector), fault.error);
        TRY("movw %0, %%es", ::"r"((u16)3));
    }
}

void guest_main(void)
{
    table = table_alloc();
    check(page_writable(table) == 0);
    table[511] = 0x00cff3000000ffff;
    check(page_readonly(table) == 0);
    check(set_gdt(mfn_of(table), 512) == 0);
    values();
    tables();
    bounds();
}
