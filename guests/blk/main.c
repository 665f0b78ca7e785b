/*
 * A block frontend, well-behaved or hostile: the first word of the command line says which.
 *
 *   good       writes and reads the disk, and compares
 *   code       reads pages of code into frames that held other code, and executes them
 *   noise      requests of random bytes, with an event after each
 *   indices    a request index that runs away
 *   twist      requests, segments and grants that change while they are looked at
 *   greedy     never takes a response
 *   events     events without requests
 *   storm      other vcpus change requests, indices, grants and memory while the backend looks at them (storm.c)
 *
 * If "persistent" follows, its grants stay mapped.
 *
 * The hostile ones go on until Domain 0 has closed the device, or for a while; then they say so and power off.
 */
#include "blk.h"

const char guest_name[] = "blk";

struct blk_ring *ring;
char *data[DATA_PAGES];
static u32 produced, consumed;

/* --- the device ---------------------------------------------------------------------------------------------- */

static void connect(void)
{
    frontend_open("device/vbd/51712");
    ring = page_alloc();
    ring->req_event = ring->rsp_event = 1;
    grant_backend(REF, ring);
    for (u32 i = 0; i < DATA_PAGES; i++)
        grant_backend(REF + 1 + i, data[i] = page_alloc());
    /* A boot loader may have used the disk before us. */
    publish("state", 1);
    wait_for_backend(2);
    publish("ring-ref", REF);
    publish("event-channel", frontend_port);
    publish("feature-persistent", asked_for("persistent"));
    publish("state", 3);
    wait_for_backend(4);
    publish("state", 4);
}

static struct blk_request *next_request(void)
{
    struct blk_request *request = &ring->entries[produced % 32].request;
    memset(request, 0, sizeof *request);
    request->id = produced;
    return request;
}

static void push(void)
{
    asm volatile("" ::: "memory");
    ring->req_prod = ++produced;
    notify_backend();
}

static int take_response(void)
{
    while (ring->rsp_prod == consumed) {
        ring->rsp_event = consumed + 1;
        wait_a_little();
    }
    struct blk_response *response = &ring->entries[consumed % 32].response;
    check(response->id == consumed);
    consumed++;
    return response->status;
}

/* --- what it does -------------------------------------------------------------------------------------------- */

static int transfer(int write, u64 sector)
{
    struct blk_request *request = next_request();
    request->operation = write;
    request->sector = sector;
    request->nr_segments = DATA_PAGES;
    for (u32 i = 0; i < DATA_PAGES; i++) {
        request->segments[i].ref = REF + 1 + i;
        request->segments[i].last = 7;
    }
    push();
    return take_response();
}

static void good(void)
{
    for (u64 round = 0; round < 40; round++) {
        u64 sector = round * 97 % (SECTORS - DATA_PAGES * 8);
        for (u32 i = 0; i < DATA_PAGES; i++)
            memset(data[i], (int)(round * 11 + i), PAGE_SIZE);
        check(transfer(1, sector) == 0);
        for (u32 i = 0; i < DATA_PAGES; i++)
            memset(data[i], 0xee, PAGE_SIZE);
        check(transfer(0, sector) == 0);
        for (u32 i = 0; i < DATA_PAGES; i++)
            for (u32 at = 0; at < PAGE_SIZE; at += 64)
                check(data[i][at] == (char)(round * 11 + i));
    }
    check(transfer(0, 1UL << 40) == -1);
    check(transfer(0, 0) == 0);
}

/* Each page of the disk is a function of its own, in two blocks at the same places in all of them. */
static void code(void)
{
    u32 executed = 0, wrong = 0;

    for (u32 round = 0; round < 1250; round++) {
        u64 page = round * 97 % (SECTORS / 8 - DATA_PAGES);
        check(transfer(0, page * 8) == 0);
        for (u32 i = 0; i < DATA_PAGES; i++, executed++)
            wrong += ((u32(*)(void))(u64)data[i])() != (u32)(page + i) * 0x9e3779b1U + 1;
    }
    printf("blk: %u pages of code executed, %u of them wrong\n", executed, wrong);
    check(wrong == 0);
}

static void noise(void)
{
    for (u32 i = 0; i < 3000; i++) {
        u64 *words = (u64 *)next_request();
        for (u32 word = 0; word < 14; word++)
            words[word] = random_number();
        ((struct blk_request *)words)->operation %= 8;
        if (random_number() % 2)
            ((struct blk_request *)words)->nr_segments %= 12;
        push();
        while (produced - (consumed = ring->rsp_prod) >= 32)
            wait_a_little();
    }
}

static void indices(void)
{
    ring->req_prod = 0x12345678;
    notify_backend();
}

static void twist(void)
{
    for (u32 round = 0; round < 400; round++) {
        struct blk_request *request = next_request();
        request->operation = round % 2;
        request->nr_segments = 4;
        for (u32 i = 0; i < 4; i++) {
            request->segments[i].ref = REF + 1 + i;
            request->segments[i].last = 7;
        }
        push();
        for (volatile u32 i = 0; i < 200; i++) {
            request->nr_segments = (u8)random_number();
            request->segments[i % 4].ref = (u32)random_number() % 64;
            request->segments[i % 4].last = (u8)random_number();
            request->sector = random_number();
            request->operation ^= 1;
            grant_entries[REF + 1 + i % 4].flags = i % 2 ? GTF_permit_access : 0;
            grant_entries[REF + 1 + i % 4].frame = (u32)random_number() % 70000;
        }
        for (u32 i = 0; i < 4; i++)
            grant_backend(REF + 1 + i, data[i]);
        while (ring->rsp_prod == consumed)
            wait_a_little();
        consumed++;
    }
}

static void greedy(void)
{
    ring->rsp_event = 0;
    for (u32 i = 0; i < 1000; i++) {
        struct blk_request *request = next_request();
        request->nr_segments = 1;
        request->segments[0].ref = REF + 1;
        push();
    }
}

static void events(void)
{
    for (u32 i = 0; i < 200000; i++)
        notify_backend();
}

void guest_main(void)
{
    static const struct {
        const char *name;
        void (*run)(void);
    } ways[] = {{"good", good}, {"code", code}, {"noise", noise}, {"indices", indices},
                {"twist", twist}, {"greedy", greedy}, {"events", events}, {"storm", storm}};
    xen_vcpu_op(VCPUOP_stop_periodic_timer, 0, 0);
    connect();
    for (u32 i = 0; i < ARRAY_SIZE(ways); i++)
        if (starts_with(start_info->cmd_line, ways[i].name))
            ways[i].run();
    if (starts_with(start_info->cmd_line, "indices") || starts_with(start_info->cmd_line, "greedy"))
        while (backend_state() == 4)
            wait_a_little();
    printf("blk: the backend's state is %d\n", backend_state());
}
