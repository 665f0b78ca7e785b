/*
 * TCP to a server: how many bytes a second there and back, and how long a byte takes that comes back at once.
 *
 * Whoever connects says what is to happen, in nine bytes: 's' (send), 'r' (receive) or 'e' (echo), and a number of
 * bytes, least first. The server answers the bytes that it was sent with one, when it has all of them. A connection
 * may be told many things, one after the other.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "bench.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define BLOCK (64 * KIB)
#define REQUEST 9

static int server = -1;
static char block[BLOCK];

static int all(int way, int fd, char *data, size_t size)
{
    while (size > 0) {
        ssize_t n = way == 's' ? write(fd, data, size) : read(fd, data, size);
        if (n <= 0)
            return -1;
        data += n;
        size -= (size_t)n;
    }
    return 0;
}

static int stream(int way, int fd, uint64_t bytes)
{
    while (bytes > 0) {
        size_t part = bytes < BLOCK ? (size_t)bytes : BLOCK;
        if (all(way, fd, block, part))
            return -1;
        bytes -= part;
    }
    return 0;
}

static void no_delay(int fd)
{
    int one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
}

static struct sockaddr_in address_of(const char *host, int port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    inet_aton(host, &address.sin_addr);
    return address;
}

static int join_server(void)
{
    struct sockaddr_in address = address_of(settings.server, settings.port);
    server = socket(AF_INET, SOCK_STREAM, 0);
    if (server < 0 || connect(server, (struct sockaddr *)&address, sizeof(address)))
        return fail();
    no_delay(server);
    return 0;
}

static void leave_server(void)
{
    if (server >= 0)
        close(server);
    server = -1;
}

static void ask(char what, uint64_t bytes)
{
    char request[REQUEST] = {what};
    for (int i = 0; i < 8; i++)
        request[1 + i] = (char)(bytes >> 8 * i);
    if (all('s', server, request, REQUEST))
        abort();
}

static double send_blocks(long count)
{
    double begin = seconds();
    ask('s', (uint64_t)count * BLOCK);
    if (stream('s', server, (uint64_t)count * BLOCK) || all('r', server, block, 1))
        abort();
    return seconds() - begin;
}

static double receive_blocks(long count)
{
    double begin = seconds();
    ask('r', (uint64_t)count * BLOCK);
    if (stream('r', server, (uint64_t)count * BLOCK))
        abort();
    return seconds() - begin;
}

static double echo_bytes(long count)
{
    double begin = seconds();
    ask('e', (uint64_t)count);
    while (count--)
        if (all('s', server, block, 1) || all('r', server, block, 1))
            abort();
    return seconds() - begin;
}

const struct row network_rows[] = {
    {"send", send_blocks, join_server, leave_server, 1, BLOCK},
    {"receive", receive_blocks, join_server, leave_server, 1, BLOCK},
    {"echo", echo_bytes, join_server, leave_server, 1, 0},
    {NULL, NULL, NULL, NULL, 0, 0},
};

static int do_as_told(int fd, const char *request)
{
    uint64_t bytes = 0;
    for (int i = 0; i < 8; i++)
        bytes |= (uint64_t)(unsigned char)request[1 + i] << 8 * i;
    if (request[0] == 's')
        return stream('r', fd, bytes) || all('s', fd, block, 1);
    if (request[0] == 'r')
        return stream('s', fd, bytes);
    while (bytes--)
        if (all('r', fd, block, 1) || all('s', fd, block, 1))
            return -1;
    return 0;
}

/* Serve one connection after the other, for ever. */
int serve(int port)
{
    struct sockaddr_in address = address_of("0.0.0.0", port);
    int listening = socket(AF_INET, SOCK_STREAM, 0);
    char request[REQUEST];

    if (listening < 0 || bind(listening, (struct sockaddr *)&address, sizeof(address)) || listen(listening, 4)) {
        perror("pvbench: serve");
        return 1;
    }
    puts("PVBENCH SERVES ;");
    fflush(stdout);
    for (;;) {
        int fd = accept(listening, NULL, NULL);
        if (fd < 0)
            continue;
        no_delay(fd);
        while (!all('r', fd, request, REQUEST) && !do_as_told(fd, request))
            ;
        close(fd);
    }
}
