/*
 * A network frontend, well-behaved or hostile: the first word of the command line says which, the number behind it
 * which address it has.
 *
 *   good       pings the router, in one slot and in several, and calls for its neighbour
 *   noise      random requests; connects anew when it was disconnected
 *   lengths    packets too short, or shorter than their parts; too many slots; a group that is none
 *   grants     references that grant nothing, for what it sends and for what it receives
 *   revoke     grants, its rings' too, that are taken back or turned to other frames while they are used
 *   flicker    receive buffers that are there and not
 *   greedy     never looks at a response
 *   starve     never gives a receive buffer
 *   events     events without requests
 *   indices    a request index of the transmit ring that runs away
 *   buffers    the same of the receive ring
 *   beyond     a packet that goes on behind its page
 *   chain      a packet without end
 *   extras     extra information without end
 *
 * The last five go on until Domain 0 has closed the device, the others for a while; then they say so and power off.
 */
#include "../lib/frontend.h"

const char guest_name[] = "net";

#define ENTRIES 256
#define TX_RING_REF 40
#define RX_RING_REF 41
#define TX_REF 50
#define RX_REF 60
#define NO_REF 400
#define TX_PAGES 4
#define RX_PAGES 32

#define NETTXF_more_data 4
#define NETTXF_extra_info 8
#define NETRXF_more_data 4
#define EXTRA_GSO 1
#define EXTRA_MCAST_ADD 2
#define EXTRA_FLAG_MORE 1
#define RSP_NULL 1
#define RSP_OKAY 0
#define RSP_ERROR (-1)

struct tx_request {
    u32 ref;
    u16 offset, flags, id, size;
};
struct tx_extra {
    u8 type, flags;
    u16 size;
    u8 kind, pad, rest[6];
};
struct rx_response {
    u16 id, offset, flags;
    short status;
};
struct tx_ring {
    volatile u32 req_prod, req_event, rsp_prod, rsp_event;
    u8 pad[48];
    union {
        struct tx_request request;
        struct tx_extra extra;
        struct {
            u16 id;
            short status;
        } response;
    } entries[ENTRIES];
};
struct rx_ring {
    volatile u32 req_prod, req_event, rsp_prod, rsp_event;
    u8 pad[48];
    union {
        struct {
            u16 id, pad;
            u32 ref;
        } request;
        struct rx_response response;
    } entries[ENTRIES];
};

static struct tx_ring *tx;
static struct rx_ring *rx;
static u8 outgoing[TX_PAGES * PAGE_SIZE] __attribute__((aligned(4096)));
static u8 incoming[RX_PAGES][PAGE_SIZE] __attribute__((aligned(4096)));
static u32 sent, answered, offered, received;
static u8 own_mac[6], own_number;

/* --- the device ---------------------------------------------------------------------------------------------- */

static void connect(void)
{
    memset(tx, 0, PAGE_SIZE);
    memset(rx, 0, PAGE_SIZE);
    tx->req_event = tx->rsp_event = rx->req_event = rx->rsp_event = 1;
    sent = answered = offered = received = 0;
    publish("state", 1);
    wait_for_backend(2);
    publish("tx-ring-ref", TX_RING_REF);
    publish("rx-ring-ref", RX_RING_REF);
    publish("event-channel", frontend_port);
    publish("request-rx-copy", 1);
    publish("feature-sg", 1);
    publish("state", 3);
    wait_for_backend(4);
    publish("state", 4);
}

static void open(void)
{
    frontend_open("device/vif/0");
    tx = page_alloc();
    rx = page_alloc();
    grant_backend(TX_RING_REF, tx);
    grant_backend(RX_RING_REF, rx);
    for (u32 i = 0; i < TX_PAGES; i++)
        grant_backend(TX_REF + i, outgoing + i * PAGE_SIZE);
    for (u32 i = 0; i < RX_PAGES; i++)
        grant_backend(RX_REF + i, incoming[i]);
    const char *mac = device_node("mac");
    for (u32 i = 0; i < 12; i++) {
        char digit = mac[i / 2 * 3 + i % 2];
        own_mac[i / 2] = own_mac[i / 2] << 4 | (digit <= '9' ? digit - '0' : digit - 'a' + 10);
    }
    connect();
}

static void request(u32 ref, u32 offset, u32 flags, u32 size)
{
    tx->entries[sent % ENTRIES].request = (struct tx_request){ref, offset, flags, sent, size};
    sent++;
}

static void extra(u8 type, u8 flags)
{
    tx->entries[sent++ % ENTRIES].extra = (struct tx_extra){type, flags, 1000, 1, 0, {0}};
}

static void push(void)
{
    asm volatile("" ::: "memory");
    tx->req_prod = sent;
    notify_backend();
}

static int answer(void)
{
    while (tx->rsp_prod == answered)
        wait_a_little();
    int status = tx->entries[answered % ENTRIES].response.status;
    check(status == RSP_NULL || tx->entries[answered % ENTRIES].response.id == (u16)answered);
    answered++;
    tx->rsp_event = answered + 1;
    return status;
}

/* All that was sent has this answer. */
static void expect_answers(int status)
{
    while (answered != sent)
        check(answer() == status);
}

/* Send the first bytes of `outgoing`. */
static void transmit(u32 size)
{
    for (u32 at = 0; at < size; at += PAGE_SIZE) {
        u32 left = size - at, part = left < PAGE_SIZE ? left : PAGE_SIZE;
        request(TX_REF + at / PAGE_SIZE, 0, left > part ? NETTXF_more_data : 0, at ? part : size);
    }
    push();
}

static void offer(u32 ref)
{
    rx->entries[offered % ENTRIES].request.id = offered % RX_PAGES;
    rx->entries[offered % ENTRIES].request.ref = ref;
    offered++;
}

static void push_offers(void)
{
    asm volatile("" ::: "memory");
    rx->req_prod = offered;
    notify_backend();
}

static void offer_all(void)
{
    while (offered - received < RX_PAGES)
        offer(RX_REF + offered % RX_PAGES);
    push_offers();
}

/* The next packet that has come: its size, or 0. */
static u32 receive(u8 *packet, u32 room)
{
    u32 size = 0;
    int more = 1;
    if (rx->rsp_prod == received)
        return 0;
    while (more) {
        check(rx->rsp_prod != received);
        struct rx_response *response = &rx->entries[received % ENTRIES].response;
        check(response->status > 0 && response->id == received % RX_PAGES && size + response->status <= room);
        if (response->status <= 0 || response->id >= RX_PAGES || size + response->status > room)
            finish();
        memcpy(packet + size, incoming[response->id] + response->offset, response->status);
        size += response->status;
        more = response->flags & NETRXF_more_data;
        received++;
        rx->rsp_event = received + 1;
    }
    offer_all();
    return size;
}

/* --- packets ------------------------------------------------------------------------------------------------- */

static const u8 router_mac[6] = {0xfe, 0xff, 0xff, 0xff, 0xff, 0xfe};
#define ECHO_HEADERS 42

static void put16(u8 *at, u32 value)
{
    at[0] = value >> 8;
    at[1] = value;
}

static void put_checksum(u8 *at, const u8 *from, u32 size)
{
    u32 sum = 0;
    for (u32 i = 0; i < size; i += 2)
        sum += from[i] << 8 | (i + 1 < size ? from[i + 1] : 0);
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    put16(at, ~sum);
}

/* Ask the router for an echo of so many bytes. */
static u32 make_ping(u32 number, u32 size)
{
    static const u8 ip[20] = {0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 1, 0, 0, 10, 0, 2, 0, 10, 0, 2, 1};
    u8 *packet = outgoing;
    memset(packet, 0, ECHO_HEADERS);
    memcpy(packet, router_mac, 6);
    memcpy(packet + 6, own_mac, 6);
    put16(packet + 12, 0x0800);
    memcpy(packet + 14, ip, sizeof ip);
    packet[14 + 15] = own_number;
    put16(packet + 16, 28 + size);
    put_checksum(packet + 24, packet + 14, 20);
    packet[34] = 8;
    put16(packet + 40, number);
    for (u32 i = 0; i < size; i++)
        packet[ECHO_HEADERS + i] = number + i;
    put_checksum(packet + 36, packet + 34, 8 + size);
    return ECHO_HEADERS + size;
}

/* Ask everybody who has an address that nobody has: all neighbours get this. */
static u32 make_call(void)
{
    static const u8 arp[8] = {0, 1, 8, 0, 6, 4, 0, 1};
    u8 *packet = outgoing, own[4] = {10, 0, 2, own_number}, wanted[4] = {10, 0, 2, 99};
    memset(packet, 0, 42);
    memset(packet, 0xff, 6);
    memcpy(packet + 6, own_mac, 6);
    put16(packet + 12, 0x0806);
    memcpy(packet + 14, arp, sizeof arp);
    memcpy(packet + 22, own_mac, 6);
    memcpy(packet + 28, own, 4);
    memcpy(packet + 38, wanted, 4);
    return 42;
}

static int is_echo(const u8 *packet, u32 size, u32 number, u32 wanted)
{
    if (size != ECHO_HEADERS + wanted || packet[12] != 8 || packet[13] || packet[34] || packet[41] != (u8)number)
        return 0;
    for (u32 i = 0; i < wanted; i++)
        if (packet[ECHO_HEADERS + i] != (u8)(number + i))
            return 0;
    return 1;
}

/* --- what it does -------------------------------------------------------------------------------------------- */

static void good(void)
{
    static u8 packet[TX_PAGES * PAGE_SIZE];
    offer_all();
    for (u32 round = 0; round < 150; round++) {
        u32 wanted = 10 + round * 977 % 9000, size = 0;
        u64 end = system_time() + PATIENCE;
        transmit(make_call());
        expect_answers(RSP_OKAY);
        transmit(make_ping(round, wanted));
        expect_answers(RSP_OKAY);
        do {
            size = receive(packet, sizeof packet);
            if (!size)
                wait_a_little();
        } while (!(size && is_echo(packet, size, round, wanted)) && system_time() < end);
        check(size && is_echo(packet, size, round, wanted));
    }
}

static void noise(void)
{
    for (u32 life = 0; life < 20; life++) {
        offer_all();
        for (u32 i = 0; i < 16 && backend_state() == 4; i++) {
            for (u32 j = 0; j < 8; j++) {
                u64 number = random_number();
                request(TX_REF + number % 6, number >> 8 & 0xfff, number >> 20 & 15, number >> 24 & 0x3ff);
                if (number >> 40 & 1)
                    extra(number >> 41 & 3, number >> 43 & 1);
            }
            request(TX_REF, 0, 0, 100);
            push();
        }
        publish("state", 6);
        connect();
    }
}

static void lengths(void)
{
    static const u16 too_short[] = {0, 1, 13};
    for (u32 i = 0; i < ARRAY_SIZE(too_short); i++) {
        request(TX_REF, 0, 0, too_short[i]);
        push();
        expect_answers(RSP_ERROR);
    }
    request(TX_REF, 0, NETTXF_more_data, 100);
    request(TX_REF + 1, 0, 0, 101);
    push();
    expect_answers(RSP_ERROR);
    request(TX_REF, 0, NETTXF_more_data, 0xffff);
    for (u32 i = 0; i < 18; i++)
        request(TX_REF + 1, 0, i < 17 ? NETTXF_more_data : 0, 3600);
    push();
    expect_answers(RSP_ERROR);
    request(0, 0, NETTXF_extra_info, 0);
    extra(EXTRA_MCAST_ADD, 0);
    push();
    check(answer() == RSP_ERROR);
    check(answer() == RSP_NULL);
}

static void grants(void)
{
    static const u32 refs[] = {NO_REF, 511, 512, 0xffffffff};
    for (u32 i = 0; i < ARRAY_SIZE(refs); i++) {
        request(refs[i], 0, 0, 60);
        push();
        expect_answers(RSP_ERROR);
        request(TX_REF, 0, NETTXF_more_data, 120);
        request(refs[i], 0, 0, 60);
        push();
        expect_answers(RSP_ERROR);
        offer(refs[i]);
        push_offers();
        transmit(make_ping(i, 100));
        expect_answers(RSP_OKAY);
        while (rx->rsp_prod == received)
            wait_a_little();
        check(rx->entries[received % ENTRIES].response.status == RSP_ERROR);
        rx->rsp_event = ++received + 1;
    }
}

static void revoke(void)
{
    for (u32 round = 0; round < 150; round++) {
        u32 size = make_ping(round, 9000);
        offer_all();
        for (u32 i = 0; i < 30; i++)
            transmit(size);
        for (u32 i = 0; i < 400; i++) {
            u32 ref = i % 2 ? TX_REF + i % TX_PAGES : RX_REF + i % RX_PAGES;
            grant_entries[ref].flags = random_number() % 2 ? GTF_permit_access : 0;
            grant_entries[ref].frame = (u32)random_number() % 70000;
        }
        grant_entries[TX_RING_REF].flags = grant_entries[RX_RING_REF].flags = 0;
        for (u32 i = 0; i < TX_PAGES; i++)
            grant_backend(TX_REF + i, outgoing + i * PAGE_SIZE);
        for (u32 i = 0; i < RX_PAGES; i++)
            grant_backend(RX_REF + i, incoming[i]);
        while (answered != sent)
            answer();
        received = rx->rsp_prod;
    }
}

static void flicker(void)
{
    for (u32 round = 0; round < 100 && backend_state() == 4; round++) {
        u32 size = make_ping(round, 9000);
        offer_all();
        for (u32 i = 0; i < 8; i++)
            transmit(size);
        for (u32 i = 0; i < 100000; i++) {
            rx->req_prod = rx->rsp_prod;
            rx->req_prod = offered;
        }
        received = rx->rsp_prod;
    }
}

static void greedy(void)
{
    u32 size = make_ping(1, 10);
    for (u32 round = 0; round < 20; round++) {
        for (u32 i = 0; i < ENTRIES; i++)
            request(TX_REF, 0, 0, size);
        push();
        while (tx->rsp_prod != sent)
            wait_a_little();
    }
}

static void starve(void)
{
    u32 size = make_ping(1, 1400);
    for (u32 i = 0; i < 1000; i++) {
        transmit(size);
        expect_answers(RSP_OKAY);
    }
}

static void events(void)
{
    for (u32 i = 0; i < 200000; i++)
        notify_backend();
}

static void indices(void)
{
    tx->req_prod = 0x12345678;
    notify_backend();
}

static void buffers(void)
{
    rx->req_prod = 0x12345678;
    transmit(make_ping(1, 10));
}

static void beyond(void)
{
    request(TX_REF, 4000, 0, 200);
    push();
}

static void chain(void)
{
    for (u32 i = 0; i < ENTRIES; i++)
        request(TX_REF, 0, NETTXF_more_data, i ? 1 : 0xffff);
    push();
}

static void extras(void)
{
    request(TX_REF, 0, NETTXF_extra_info, 100);
    for (u32 i = 1; i < ENTRIES; i++)
        extra(EXTRA_GSO, EXTRA_FLAG_MORE);
    push();
}

void guest_main(void)
{
    static const struct {
        const char *name;
        void (*run)(void);
        int is_fatal;
    } ways[] = {
        {"good", good, 0},     {"noise", noise, 0},   {"lengths", lengths, 0}, {"grants", grants, 0}, {"revoke", revoke, 0},
        {"flicker", flicker, 0}, {"greedy", greedy, 0}, {"starve", starve, 0},   {"events", events, 0}, {"indices", indices, 1},
        {"buffers", buffers, 1}, {"beyond", beyond, 1}, {"chain", chain, 1},     {"extras", extras, 1},
    };
    const char *line = start_info->cmd_line;
    xen_vcpu_op(VCPUOP_stop_periodic_timer, 0, 0);
    for (const char *at = line; *at; at++)
        if (*at >= '0' && *at <= '9')
            own_number = own_number * 10 + *at - '0';
    open();
    for (u32 i = 0; i < ARRAY_SIZE(ways); i++)
        if (starts_with(line, ways[i].name)) {
            ways[i].run();
            while (ways[i].is_fatal && backend_state() == 4)
                wait_a_little();
        }
    printf("net: the backend's state is %d\n", backend_state());
}
