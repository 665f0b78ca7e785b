/*
 * Small UDP packets: how many a second arrive, in bursts that the receiver acknowledges by TCP. Lost ones do not count.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "bench.h"
#include "network.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define SIZE 64
#define ROOM (4 * MIB) /* some drivers' packets take a page each, however small */
#define PATIENCE_MS 200 /* after which what has not come is lost */
#define FLOOD_PORT 9    /* where nobody listens */

static char packet[SIZE];

static int udp_socket(uint16_t *port)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t size = sizeof(address);
    int room = (int)ROOM, fd = socket(AF_INET, SOCK_DGRAM, 0);
    if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof(room)))
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof(room));
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, size) || getsockname(fd, (struct sockaddr *)&address, &size))
        abort();
    *port = ntohs(address.sin_port);
    return fd;
}

/* How many of a burst arrive. */
static uint64_t receive_burst(int fd)
{
    struct pollfd ready = {.fd = fd, .events = POLLIN};
    uint64_t came = 0;
    while (came < BURST && poll(&ready, 1, PATIENCE_MS) > 0 && recv(fd, packet, SIZE, 0) >= 0)
        came++;
    return came;
}

static void send_burst(int fd)
{
    for (int i = 0; i < BURST; i++)
        if (send(fd, packet, SIZE, 0) < 0)
            poll(NULL, 0, 1); /* there is no room, or an earlier one was refused: this one is lost */
}

static int tell(int fd, uint64_t number)
{
    return all('s', fd, (char *)&number, sizeof(number));
}

static uint64_t told(int fd)
{
    uint64_t number;
    if (all('r', fd, (char *)&number, sizeof(number)))
        abort();
    return number;
}

static int joined(void)
{
    uint16_t port;
    int fd = udp_socket(&port);
    struct sockaddr_in address = address_of(settings.server, (int)told(server));
    if (connect(fd, (struct sockaddr *)&address, sizeof(address)))
        abort();
    return fd;
}

/* The seconds that all of so many bursts would have taken, if some packets did not arrive. */
static double for_all(double taken, long bursts, uint64_t arrived)
{
    return arrived ? taken * (double)bursts * BURST / (double)arrived : 1e3;
}

double send_packets(long bursts)
{
    double begin;
    uint64_t arrived = 0;
    int fd;

    ask(server, 'u', (uint64_t)bursts);
    fd = joined();
    begin = seconds();
    for (long i = 0; i < bursts; i++) {
        send_burst(fd);
        arrived += told(server);
    }
    begin = seconds() - begin;
    close(fd);
    return for_all(begin, bursts, arrived);
}

double receive_packets(long bursts)
{
    double begin;
    uint64_t arrived = 0;
    int fd;

    ask(server, 'd', (uint64_t)bursts);
    fd = joined();
    send(fd, packet, SIZE, 0); /* that it knows where to */
    begin = seconds();
    for (long i = 0; i < bursts; i++) {
        uint64_t came = receive_burst(fd);
        arrived += came;
        if (tell(server, came))
            abort();
    }
    begin = seconds() - begin;
    close(fd);
    return for_all(begin, bursts, arrived);
}

int take_packets(int fd, uint64_t bursts)
{
    uint16_t port;
    int from = udp_socket(&port), failed = tell(fd, port);

    while (!failed && bursts--)
        failed = tell(fd, receive_burst(from));
    close(from);
    return failed;
}

int give_packets(int fd, uint64_t bursts)
{
    struct sockaddr_in peer;
    socklen_t size = sizeof(peer);
    uint16_t port;
    int to = udp_socket(&port), failed = tell(fd, port);

    if (!failed)
        failed = recvfrom(to, packet, SIZE, 0, (struct sockaddr *)&peer, &size) < 0 ||
                 connect(to, (struct sockaddr *)&peer, size);
    while (!failed && bursts--) {
        send_burst(to);
        (void)told(fd);
    }
    close(to);
    return failed;
}

int flood(const char *host)
{
    struct sockaddr_in address = address_of(host, FLOOD_PORT);
    uint16_t port;
    int fd = udp_socket(&port);

    for (;;)
        sendto(fd, packet, SIZE, 0, (struct sockaddr *)&address, sizeof(address));
}
