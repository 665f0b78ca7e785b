/* Time as a guest reads it: version numbers, scaling, monotony, the wall clock, and records elsewhere. */
#include "guest.h"

const char guest_name[] = "time";

#define MS 1000000UL

static volatile struct vcpu_time_info *record(void)
{
    return &vcpu0->time;
}

static void shape(void)
{
    volatile struct vcpu_time_info *t = record();
    printf("version is even: %d, not zero: %d\n", !(t->version & 1), t->version != 0);
    printf("scale: mul set: %d, shift between -32 and 32: %d\n", t->tsc_to_system_mul != 0,
           t->tsc_shift > -32 && t->tsc_shift < 32);
    u64 stamp = t->tsc_timestamp;
    /* Both may count from the domain's creation, so the older stamp can lie below zero. */
    printf("timestamp not ahead of the counter: %d\n", (s64)(rdtsc() - stamp) >= 0);
    printf("padding: %u %u %u\n", t->pad0, t->pad1[0], t->pad1[1]);
    /* The frequency that the scale stands for is that of a real counter. */
    u64 hz = (1000000000UL << 32) / t->tsc_to_system_mul;
    hz = t->tsc_shift < 0 ? hz << -t->tsc_shift : hz >> t->tsc_shift;
    printf("counter between 100 MHz and 10 GHz: %d\n", hz > 100000000 && hz < 10000000000);
}

static void monotony(void)
{
    u64 last = system_time(), backwards = 0, odd = 0;
    u32 first_version = record()->version, versions = 0, seen = first_version;
    u64 end = last + 300 * MS;
    while (last < end) {
        u64 now = system_time();
        backwards += now < last;
        last = now;
        odd += record()->version & 1;
        versions += record()->version != seen;
        seen = record()->version;
    }
    printf("backwards: %lu, odd versions seen: %lu\n", backwards, odd);
    check(!backwards && !odd);
    u64 before = record()->system_time;
    sleep_until(last + 1200 * MS);
    printf("the record moves on within a second or so: %d\n", record()->system_time > before);
}

static void wall_clock(void)
{
    u32 version = shared_info->wc_version;
    u64 sec = shared_info->wc_sec | (u64)shared_info->wc_sec_hi << 32;
    printf("wall clock: version even: %d, after 2020: %d, nanoseconds below 10^9: %d\n", !(version & 1),
           sec + system_time() / 1000000000 > 1577836800, shared_info->wc_nsec < 1000000000);
}

static void elsewhere(void)
{
    static struct vcpu_time_info mine __attribute__((aligned(64)));
    struct {
        u64 address;
    } area = {(u64)&mine};
    printf("register_vcpu_time_memory_area: %s\n",
           error_name(xen_vcpu_op(VCPUOP_register_vcpu_time_memory_area, 0, &area)));
    printf("filled at once: %d\n", mine.version != 0 && !(mine.version & 1));
    printf("same scale: %d\n", mine.tsc_to_system_mul == record()->tsc_to_system_mul);
    area.address = 0x12345000;
    printf("not mapped: %s\n", error_name(xen_vcpu_op(VCPUOP_register_vcpu_time_memory_area, 0, &area)));
    printf("for vcpu 1: %s\n", error_name(xen_vcpu_op(VCPUOP_register_vcpu_time_memory_area, 1, &area)));
    printf("bad pointer: %s\n",
           error_name(xen_vcpu_op(VCPUOP_register_vcpu_time_memory_area, 0, (void *)0x12345000)));
    area.address = 0;
    printf("none: %s\n", error_name(xen_vcpu_op(VCPUOP_register_vcpu_time_memory_area, 0, &area)));
}

void guest_main(void)
{
    shape();
    monotony();
    wall_clock();
    elsewhere();
}
