/* A split driver's frontend: xenstore, grants to Domain 0, and an event channel to it. */
#ifndef FRONTEND_H
#define FRONTEND_H

#include "grant.h"

/* Begin with a device ("device/vbd/51712"): its grant entries, and a port for Domain 0. */
void frontend_open(const char *device);
extern struct grant_entry_v1 *grant_entries;
extern u32 frontend_port; /* for Domain 0 to bind */

const char *device_node(const char *name);        /* its text, until the next question; empty: there is none */
void publish(const char *name, u32 value);        /* write a node of the device's directory */
int backend_state(void);
void wait_for_backend(int state);
void grant_backend(u32 ref, const void *page);    /* a whole page, to be read and written */
void notify_backend(void);
void wait_a_little(void);
u64 random_number(void); /* the same ones in every run */

#endif
