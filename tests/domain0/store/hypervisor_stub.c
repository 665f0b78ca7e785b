/* Xen's libraries, as far as xenstored needs them: it thinks that it runs on Xen.
 *
 * Built as libxenctrl, libxenevtchn and libxengnttab. Files in the directory STUB_DIR stand for what is
 * elsewhere: "ring-N" is domain N's xenstore page; "dom-N" exists if the domain does, and contains an s if it
 * has shut down; "events" is a FIFO of 32-bit numbers of event channels that became pending; "xsd_port" and
 * "xsd_kva" are what Domain 0's kernel offers under /proc/xen. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { PORT_OF_VIRQ = 1, FIRST_PORT = 1000 };

/* The head of xc_dominfo_t, all that is looked at here. */
struct dominfo_head {
    uint32_t domid;
    uint32_t ssidref;
    unsigned int dying : 1, crashed : 1, shutdown : 1, paused : 1, blocked : 1, running : 1;
};

static char handle[1];

static int next_open(const char *path, int flags, int mode) {
    return ((int (*)(const char *, int, ...))dlsym(RTLD_NEXT, "open"))(path, flags, mode);
}

static int open_own(const char *name, int number, int flags) {
    char path[512];
    if (number < 0)
        snprintf(path, sizeof(path), "%s/%s", getenv("STUB_DIR"), name);
    else
        snprintf(path, sizeof(path), "%s/%s-%d", getenv("STUB_DIR"), name, number);
    return next_open(path, flags, 0);
}

static int events_fd(void) {
    static int fd = -1;
    if (fd < 0)
        fd = open_own("events", -1, O_RDWR);
    return fd;
}

/* What the kernel offers. */
int open(const char *path, int flags, ...) {
    va_list arguments;
    va_start(arguments, flags);
    int mode = flags & O_CREAT ? va_arg(arguments, int) : 0;
    va_end(arguments);
    const char *name = strrchr(path, '/');
    if (name && (!strcmp(name, "/xsd_port") || !strcmp(name, "/xsd_kva")))
        return open_own(name + 1, -1, flags);
    return next_open(path, flags, mode);
}

/* libxenctrl */
void *xc_interface_open(void *logger, void *dombuild_logger, unsigned flags) { return handle; }
int xc_interface_close(void *xc) { return 0; }

int xc_domain_getinfo(void *xc, uint32_t domid, unsigned max, struct dominfo_head *info) {
    char state = 0;
    int fd = open_own("dom", (int)domid, O_RDONLY);
    if (fd < 0)
        return 0;
    if (read(fd, &state, 1) < 0)
        abort();
    close(fd);
    memset(info, 0, sizeof(*info));
    info->domid = domid;
    info->shutdown = state == 's';
    return 1;
}

/* libxenevtchn */
void *xenevtchn_open(void *logger, unsigned flags) { return handle; }
void *xenevtchn_fdopen(void *logger, int fd, unsigned flags) { return handle; }
int xenevtchn_fd(void *evtchn) { return events_fd(); }
int xenevtchn_notify(void *evtchn, uint32_t port) { return 0; }
int xenevtchn_bind_interdomain(void *evtchn, uint32_t domid, uint32_t port) { return FIRST_PORT + (int)domid; }
int xenevtchn_bind_virq(void *evtchn, unsigned virq) { return PORT_OF_VIRQ; }
int xenevtchn_unbind(void *evtchn, uint32_t port) { return 0; }
int xenevtchn_unmask(void *evtchn, uint32_t port) { return 0; }

int xenevtchn_pending(void *evtchn) {
    uint32_t port;
    return read(events_fd(), &port, sizeof(port)) == sizeof(port) ? (int)port : -1;
}

/* libxengnttab */
void *xengnttab_open(void *logger, unsigned flags) { return handle; }
int xengnttab_close(void *gnttab) { return 0; }
int xengnttab_set_max_grants(void *gnttab, uint32_t count) { return 0; }
int xengnttab_unmap(void *gnttab, void *start, uint32_t count) { return munmap(start, 4096); }

void *xengnttab_map_grant_ref(void *gnttab, uint32_t domid, uint32_t reference, int protection) {
    int fd = open_own("ring", (int)domid, O_RDWR);
    if (fd < 0) {
        errno = EINVAL; /* as Linux says of every grant that cannot be mapped */
        return NULL;
    }
    void *page = mmap(NULL, 4096, protection, MAP_SHARED, fd, 0);
    close(fd);
    return page == MAP_FAILED ? NULL : page;
}
