/* The hypercalls, as C functions. A result below zero is a negated error number. */
#ifndef GUEST_HYPERCALL_H
#define GUEST_HYPERCALL_H

#include "xen.h"

#ifdef USE_HYPERCALL_PAGE
extern char hypercall_page[];
#define HYPERCALL_INSN "lea (%%rax,%%rax), %%eax; shl $4, %%eax; add $hypercall_page, %%rax; call *%%rax"
#else
#define HYPERCALL_INSN "syscall"
#endif

/* Every argument register is written, so that a hypercall with fewer arguments sees zeros. */
static inline s64 hypercall(u64 number, u64 a1, u64 a2, u64 a3, u64 a4, u64 a5)
{
    register u64 r10 asm("r10") = a4;
    register u64 r8 asm("r8") = a5;
    s64 result;
    asm volatile(HYPERCALL_INSN
                 : "=a"(result), "+D"(a1), "+S"(a2), "+d"(a3), "+r"(r10), "+r"(r8)
                 : "0"(number)
                 : "rcx", "r11", "r9", "memory");
    return result;
}

#define H5(n, a, b, c, d, e) \
    hypercall(n, (u64)(a), (u64)(b), (u64)(c), (u64)(d), (u64)(e))
#define H4(n, a, b, c, d) H5(n, a, b, c, d, 0)
#define H3(n, a, b, c) H4(n, a, b, c, 0)
#define H2(n, a, b) H3(n, a, b, 0)
#define H1(n, a) H2(n, a, 0)

static inline s64 xen_set_trap_table(const struct trap_info *traps)
{
    return H1(__HYPERVISOR_set_trap_table, traps);
}
static inline s64 xen_mmu_update(const struct mmu_update *reqs, u32 count, u32 *done, u16 dom)
{
    return H4(__HYPERVISOR_mmu_update, reqs, count, done, dom);
}
static inline s64 xen_mmuext_op(const struct mmuext_op *ops, u32 count, u32 *done, u16 dom)
{
    return H4(__HYPERVISOR_mmuext_op, ops, count, done, dom);
}
static inline s64 xen_update_va_mapping(u64 va, u64 pte, u64 flags)
{
    return H3(__HYPERVISOR_update_va_mapping, va, pte, flags);
}
static inline s64 xen_stack_switch(u64 ss, u64 sp)
{
    return H2(__HYPERVISOR_stack_switch, ss, sp);
}
static inline s64 xen_console_io(u32 cmd, u64 count, void *buffer)
{
    return H3(__HYPERVISOR_console_io, cmd, count, buffer);
}
static inline s64 xen_sched_op(u32 cmd, void *arg)
{
    return H2(__HYPERVISOR_sched_op, cmd, arg);
}
static inline s64 xen_vcpu_op(u32 cmd, u32 vcpu, void *arg)
{
    return H3(__HYPERVISOR_vcpu_op, cmd, vcpu, arg);
}
static inline s64 xen_callback_op(u32 cmd, void *arg)
{
    return H2(__HYPERVISOR_callback_op, cmd, arg);
}
static inline s64 xen_event_channel_op(u32 cmd, void *arg)
{
    return H2(__HYPERVISOR_event_channel_op, cmd, arg);
}
static inline s64 xen_version(u32 cmd, void *arg)
{
    return H2(__HYPERVISOR_xen_version, cmd, arg);
}
static inline s64 xen_memory_op(u32 cmd, void *arg)
{
    return H2(__HYPERVISOR_memory_op, cmd, arg);
}
static inline s64 xen_physdev_op(u32 cmd, void *arg)
{
    return H2(__HYPERVISOR_physdev_op, cmd, arg);
}
static inline s64 xen_multicall(struct multicall_entry *calls, u32 count)
{
    return H2(__HYPERVISOR_multicall, calls, count);
}
static inline s64 xen_set_timer_op(u64 until)
{
    return H1(__HYPERVISOR_set_timer_op, until);
}
static inline s64 xen_set_segment_base(u32 which, u64 base)
{
    return H2(__HYPERVISOR_set_segment_base, which, base);
}

#endif
