/*
 * TCP to a server: how many bytes a second there and back, and how long a byte takes that comes back at once, alone or
 * beside another connection's bytes.
 *
 * Whoever connects says what is to happen, in nine bytes: 's' (send), 'r' (receive), 'e' (echo), 'u' or 'd' (bursts of
 * small packets to the server, or from it), and a number of bytes or bursts, least first. The server answers the bytes that
 * it was sent with one, when it has all of them. A connection may be told many things, one after the other.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "bench.h"
#include "network.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define BLOCK (64 * KIB)
#define REQUEST 9

int server = -1;
static pid_t other = -1; /* who sends meanwhile */
static char block[BLOCK];

int all(int way, int fd, char *data, size_t size)
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

struct sockaddr_in address_of(const char *host, int port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    inet_aton(host, &address.sin_addr);
    return address;
}

int connected(void)
{
    struct sockaddr_in address = address_of(settings.server, settings.port);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)))
        return -1;
    no_delay(fd);
    return fd;
}

int join_server(void)
{
    server = connected();
    return server < 0 ? fail() : 0;
}

void leave_server(void)
{
    if (server >= 0)
        close(server);
    server = -1;
}

void ask(int fd, char what, uint64_t number)
{
    char request[REQUEST] = {what};
    for (int i = 0; i < 8; i++)
        request[1 + i] = (char)(number >> 8 * i);
    if (all('s', fd, request, REQUEST))
        abort();
}

/* Another process sends for as long as the row is measured. */
static int join_beside_a_stream(void)
{
    other = fork();
    if (other == 0) {
        int fd = connected();
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (fd >= 0)
            ask(fd, 's', UINT64_MAX);
        _exit(fd < 0 || stream('s', fd, UINT64_MAX));
    }
    return other < 0 ? fail() : join_server();
}

static void leave_both(void)
{
    leave_server();
    if (other > 0) {
        kill(other, SIGKILL);
        waitpid(other, NULL, 0);
    }
    other = -1;
}

static double send_blocks(long count)
{
    double begin = seconds();
    ask(server, 's', (uint64_t)count * BLOCK);
    if (stream('s', server, (uint64_t)count * BLOCK) || all('r', server, block, 1))
        abort();
    return seconds() - begin;
}

static double receive_blocks(long count)
{
    double begin = seconds();
    ask(server, 'r', (uint64_t)count * BLOCK);
    if (stream('r', server, (uint64_t)count * BLOCK))
        abort();
    return seconds() - begin;
}

static double echo_bytes(long count)
{
    double begin = seconds();
    ask(server, 'e', (uint64_t)count);
    while (count--)
        if (all('s', server, block, 1) || all('r', server, block, 1))
            abort();
    return seconds() - begin;
}

const struct row network_rows[] = {
    {"send", send_blocks, join_server, leave_server, 1, BLOCK},
    {"receive", receive_blocks, join_server, leave_server, 1, BLOCK},
    {"echo", echo_bytes, join_server, leave_server, 1, 0},
    {"loaded", echo_bytes, join_beside_a_stream, leave_both, 1, 0},
    {"packets_out", send_packets, join_server, leave_server, 1.0 / BURST, 0},
    {"packets_in", receive_packets, join_server, leave_server, 1.0 / BURST, 0},
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
    if (request[0] == 'u')
        return take_packets(fd, bytes);
    if (request[0] == 'd')
        return give_packets(fd, bytes);
    while (bytes--)
        if (all('r', fd, block, 1) || all('s', fd, block, 1))
            return -1;
    return 0;
}

static void serve_one(int fd)
{
    char request[REQUEST];
    no_delay(fd);
    while (!all('r', fd, request, REQUEST) && !do_as_told(fd, request))
        ;
}

/* Serve all connections that come to an address, each in a process of its own, for ever. */
int serve(const char *host, int port)
{
    struct sockaddr_in address = address_of(host, port);
    int one = 1, listening = socket(AF_INET, SOCK_STREAM, 0);

    signal(SIGCHLD, SIG_IGN);
    signal(SIGPIPE, SIG_IGN);
    setsockopt(listening, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
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
        if (fork() == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL); /* it ends with the server */
            serve_one(fd);
            _exit(0);
        }
        close(fd);
    }
}
