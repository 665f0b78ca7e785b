/*
 * What the rows about networks share: a connection to a server, and what it is told.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PVBENCH_NETWORK_H
#define PVBENCH_NETWORK_H

#include <netinet/in.h>
#include <stddef.h>
#include <stdint.h>

#define BURST 128 /* packets */

extern int server; /* the connection, or -1 */

int connected(void);                                      /* one to the server, or -1 */
int join_server(void);                                    /* 0, or an error number */
void leave_server(void);
void ask(int fd, char what, uint64_t number);
int all(int way, int fd, char *data, size_t size);        /* 's' or 'r'; -1: the connection has ended */
struct sockaddr_in address_of(const char *host, int port);

double send_packets(long bursts);
double receive_packets(long bursts);
int take_packets(int fd, uint64_t bursts);                /* the server's end of both */
int give_packets(int fd, uint64_t bursts);
int flood(const char *host);                              /* small packets, for ever */

#endif
