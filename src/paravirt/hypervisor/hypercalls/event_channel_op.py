# cython: language_level=3, cdivision=True, boundscheck=False, wraparound=False, initializedcheck=False
# mypy: ignore-errors
# ruff: noqa: F821
"""event_channel_op: what a guest may do with its ports (public/event_channel.h).

The argument of each operation is copied in once; what it answers is copied out before the call returns.
"""

import cython
from cython.cimports.paravirt.abi.constants import (
    DOMID_SELF,
    EEXIST,
    EFAULT,
    EINVAL,
    ENOENT,
    ENOSYS,
    EPERM,
    ESRCH,
    EVTCHNOP_alloc_unbound,
    EVTCHNOP_bind_interdomain,
    EVTCHNOP_bind_ipi,
    EVTCHNOP_bind_pirq,
    EVTCHNOP_bind_vcpu,
    EVTCHNOP_bind_virq,
    EVTCHNOP_close,
    EVTCHNOP_expand_array,
    EVTCHNOP_init_control,
    EVTCHNOP_reset,
    EVTCHNOP_send,
    EVTCHNOP_set_priority,
    EVTCHNOP_status,
    EVTCHNOP_unmask,
    VIRQ_ARCH_0,
    VIRQ_ARCH_7,
    VIRQ_DEBUG,
    VIRQ_TIMER,
    VIRQ_XENOPROF,
    VIRQ_XENPMU,
)
from cython.cimports.paravirt.hypervisor.events import (
    alloc_port,
    alloc_unbound,
    bind_interdomain,
    close_port,
    evtchn_send,
    port_is_valid,
    unmask,
)
from cython.cimports.paravirt.hypervisor.events_fifo import (
    fifo_destroy,
    fifo_expand_array,
    fifo_init_control,
    fifo_set_priority,
)
from cython.cimports.paravirt.hypervisor.guestmem import copy_from_guest, copy_to_guest
from cython.cimports.paravirt.hypervisor.records import (
    PORT_INTERDOMAIN,
    PORT_IPI,
    PORT_UNBOUND,
    PORT_VIRQ,
    DomainPtr,
    HostPtr,
    PortPtr,
    VcpuPtr,
    i64,
    u16,
    u32,
    u64,
)
from cython.cimports.paravirt.machine.cpu import U32Ptr, U64Ptr

NR_VIRQS = cython.declare(u32, 24)
RESET_CONTINUED = cython.declare(u64, 14)
LINK_BITS = cython.declare(u32, 17)


def argument_size(command: u64) -> u64:
    """Bytes of an operation's argument; 0: there is no such operation."""
    if command == EVTCHNOP_status:
        return 24
    if command == EVTCHNOP_init_control:
        return 24
    if command == EVTCHNOP_bind_interdomain or command == EVTCHNOP_bind_virq or command == EVTCHNOP_bind_pirq:
        return 12
    if (command == EVTCHNOP_alloc_unbound or command == EVTCHNOP_bind_ipi or command == EVTCHNOP_bind_vcpu
            or command == EVTCHNOP_expand_array or command == EVTCHNOP_set_priority):
        return 8
    if command == EVTCHNOP_close or command == EVTCHNOP_send or command == EVTCHNOP_unmask:
        return 4
    if command == EVTCHNOP_reset or command == RESET_CONTINUED:
        return 2
    return 0


def own_domid(host: HostPtr, v: VcpuPtr, domid: u16) -> i64:
    """0 if a call names the caller itself; -ESRCH: no such domain; -EPERM: somebody else."""
    if domid == DOMID_SELF or domid == v.domain.domid:
        return 0
    if domid >= host.max_domains or host.domains[domid] == cython.NULL:
        return -ESRCH
    return -EPERM


def is_global_virq(virq: u32) -> cython.bint:
    """Whether a virtual interrupt is the domain's (bound on vcpu 0 first), and not each vcpu's own."""
    return not (virq == VIRQ_TIMER or virq == VIRQ_DEBUG or virq == VIRQ_XENOPROF or virq == VIRQ_XENPMU
                or (VIRQ_ARCH_0 <= virq and virq <= VIRQ_ARCH_7))


def op_alloc_unbound(host: HostPtr, v: VcpuPtr, a: U32Ptr) -> i64:
    """a: domid | remote domid << 16, port."""
    remote: u16 = cython.cast(u16, a[0] >> 16)
    rc: i64 = own_domid(host, v, cython.cast(u16, a[0]))
    if rc == 0:
        rc = alloc_unbound(v.domain, v.domain.domid if remote == DOMID_SELF else remote)
    if rc < 0:
        return rc
    a[1] = cython.cast(u32, rc)
    return 0


def op_bind_interdomain(host: HostPtr, v: VcpuPtr, a: U32Ptr) -> i64:
    """a: remote domid, remote port, local port."""
    remote: u16 = cython.cast(u16, a[0])
    rc: i64 = bind_interdomain(v.domain, v.domain.domid if remote == DOMID_SELF else remote, a[1])
    if rc < 0:
        return rc
    a[2] = cython.cast(u32, rc)
    return 0


def op_bind_virq(d: DomainPtr, a: U32Ptr) -> i64:
    """a: virq, vcpu, port."""
    port: i64
    if a[0] >= NR_VIRQS:
        return -EINVAL
    if is_global_virq(a[0]) and a[1] != 0:
        return -EINVAL
    if a[1] >= d.nr_vcpus:
        return -ENOENT
    if d.vcpus[a[1]].virq_port[a[0]] != 0:
        return -EEXIST
    port = alloc_port(d)
    if port < 0:
        return port
    d.ports[port].state = PORT_VIRQ
    d.ports[port].notify_vcpu = a[1]
    d.ports[port].virq = cython.cast(u16, a[0])
    d.vcpus[a[1]].virq_port[a[0]] = cython.cast(u32, port)
    a[2] = cython.cast(u32, port)
    return 0


def op_bind_ipi(d: DomainPtr, a: U32Ptr) -> i64:
    """a: vcpu, port."""
    port: i64
    if a[0] >= d.nr_vcpus:
        return -ENOENT
    port = alloc_port(d)
    if port < 0:
        return port
    d.ports[port].state = PORT_IPI
    d.ports[port].notify_vcpu = a[0]
    a[1] = cython.cast(u32, port)
    return 0


def op_bind_vcpu(d: DomainPtr, port: u32, vcpu: u32) -> i64:
    """Which vcpu a port notifies: not to be changed for what is a vcpu's own."""
    p: PortPtr
    if vcpu >= d.nr_vcpus:
        return -ENOENT
    if not port_is_valid(d, port):
        return -EINVAL
    p = cython.address(d.ports[port])
    if p.state == PORT_VIRQ and is_global_virq(p.virq):
        # Its home in the table of virtual interrupts stays with vcpu 0.
        p.notify_vcpu = vcpu
        return 0
    if p.state == PORT_UNBOUND or p.state == PORT_INTERDOMAIN:
        p.notify_vcpu = vcpu
        return 0
    return -EINVAL


def op_status(host: HostPtr, v: VcpuPtr, a: U32Ptr) -> i64:
    """a: domid, port, status, vcpu, and what the status says more of."""
    p: PortPtr
    rc: i64 = own_domid(host, v, cython.cast(u16, a[0]))
    if rc != 0:
        return rc
    if not port_is_valid(v.domain, a[1]):
        return -EINVAL
    p = cython.address(v.domain.ports[a[1]])
    a[2] = 0
    if p.state == PORT_UNBOUND:
        a[2] = 1
        a[4] = p.remote_domid
    elif p.state == PORT_INTERDOMAIN:
        a[2] = 2
        a[4] = p.remote_domid
        a[5] = p.remote_port
    elif p.state == PORT_VIRQ:
        a[2] = 4
        a[4] = p.virq
    elif p.state == PORT_IPI:
        a[2] = 5
    a[3] = p.notify_vcpu
    return 0


def op_reset(host: HostPtr, v: VcpuPtr, domid: u16) -> i64:
    """Close all ports, and go back to the two-level ABI."""
    port: u32
    rc: i64 = own_domid(host, v, domid)
    if rc != 0:
        return rc
    for port in range(1, v.domain.nr_ports):
        close_port(v.domain, port)
    fifo_destroy(v.domain)
    return 0


def op_init_control(d: DomainPtr, a: U32Ptr) -> i64:
    """a: frame (64 bits), offset, vcpu, link bits (8 bits)."""
    rc: i64
    if a[3] >= d.nr_vcpus:
        return -ENOENT
    rc = fifo_init_control(d, cython.cast(u64, a[1]) << 32 | a[0], a[2], d.vcpus[a[3]])
    if rc == 0:
        a[4] = (a[4] & ~cython.cast(u32, 255)) | LINK_BITS
    return rc


def carry_out(host: HostPtr, v: VcpuPtr, command: u64, a: U32Ptr) -> i64:
    """One operation on its copied argument."""
    d: DomainPtr = v.domain
    if command == EVTCHNOP_send:
        return evtchn_send(host, d, a[0])
    if command == EVTCHNOP_unmask:
        return unmask(d, a[0])
    if command == EVTCHNOP_bind_vcpu:
        return op_bind_vcpu(d, a[0], a[1])
    if command == EVTCHNOP_bind_virq:
        return op_bind_virq(d, a)
    if command == EVTCHNOP_bind_ipi:
        return op_bind_ipi(d, a)
    if command == EVTCHNOP_alloc_unbound:
        return op_alloc_unbound(host, v, a)
    if command == EVTCHNOP_bind_interdomain:
        return op_bind_interdomain(host, v, a)
    if command == EVTCHNOP_close:
        return close_port(d, a[0])
    if command == EVTCHNOP_status:
        return op_status(host, v, a)
    if command == EVTCHNOP_reset or command == RESET_CONTINUED:
        return op_reset(host, v, cython.cast(u16, a[0]))
    if command == EVTCHNOP_init_control:
        return op_init_control(d, a)
    if command == EVTCHNOP_expand_array:
        return fifo_expand_array(d, cython.cast(u64, a[1]) << 32 | a[0])
    if command == EVTCHNOP_set_priority:
        if not d.fifo:
            return -ENOSYS
        return fifo_set_priority(d, a[0], a[1]) if port_is_valid(d, a[0]) else -EINVAL
    # No physical interrupt is ever given to a guest here.
    return -EPERM


def do_event_channel_op(host: HostPtr, v: VcpuPtr, args: U64Ptr) -> i64:
    """HYPERVISOR_event_channel_op(command, argument)."""
    a: u32[6]
    command: u64 = cython.cast(u32, args[0])
    size: u64 = argument_size(command)
    rc: i64
    if size == 0:
        return -ENOSYS
    if copy_from_guest(v, a, args[1], size) != 0:
        return -EFAULT
    rc = carry_out(host, v, command, a)
    if rc == 0 and size > 4 and copy_to_guest(v, args[1], a, size) != 0:
        return -EFAULT
    return rc


def do_event_channel_op_compat(host: HostPtr, v: VcpuPtr, args: U64Ptr) -> i64:
    """The old form: {command, argument} in one structure of 32 bytes."""
    op: u32[8]
    command: u64
    rc: i64
    if copy_from_guest(v, op, args[0], 32) != 0:
        return -EFAULT
    command = op[0]
    if command > EVTCHNOP_unmask:
        return -ENOSYS
    rc = carry_out(host, v, command, cython.address(op[2]))
    if rc == 0 and copy_to_guest(v, args[0], op, 32) != 0:
        return -EFAULT
    return rc
