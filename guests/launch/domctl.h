/* The few control operations that making a domain takes (Xen 4.17, interface version 0x15). */
#ifndef LAUNCH_DOMCTL_H
#define LAUNCH_DOMCTL_H

#include "guest.h"

#define XEN_DOMCTL_INTERFACE_VERSION 0x15
#define XEN_DOMCTL_createdomain 1
#define XEN_DOMCTL_unpausedomain 4
#define XEN_DOMCTL_getdomaininfo 5
#define XEN_DOMCTL_max_mem 11
#define XEN_DOMCTL_setvcpucontext 12
#define XEN_DOMCTL_max_vcpus 15
#define XEN_DOMCTL_hypercall_init 22

#define XEN_DOMINF_shutdown 4
#define XEN_DOMINF_shutdownshift 16

struct domctl {
    u32 cmd, interface_version;
    u16 domain, pad[3];
    union {
        struct {
            u32 ssidref;
            u8 handle[16];
            u32 flags, iommu_opts, max_vcpus, max_evtchn_port;
            int max_grant_frames, max_maptrack_frames;
            u32 grant_opts, vmtrace_size, cpupool_id;
            u32 emulation_flags, misc_flags;
        } create;
        struct {
            u16 domain, pad;
            u32 flags;
            u64 tot_pages, max_pages, outstanding_pages, shr_pages, paged_pages, shared_info_frame, cpu_time;
            u32 nr_online_vcpus, max_vcpu_id;
        } info;
        struct {
            u64 max_memkb;
        } max_mem;
        struct {
            u32 vcpu;
            struct vcpu_guest_context *context;
        } context;
        struct {
            u32 max;
        } max_vcpus;
        struct {
            u64 gmfn;
        } hypercall_init;
        u8 space[256];
    } u;
};

#endif
