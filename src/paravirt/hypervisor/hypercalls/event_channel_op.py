# cython: language_level=3, cdivision=True, boundscheck=False, wraparound=False, initializedcheck=False
# mypy: ignore-errors
# ruff: noqa: F821  (names declared in the .pxd beside this file)
"""event_channel_op: what a guest may do with its ports; the older event_channel_op_compat.

The argument of each operation is copied in once, and copied out again, with the answer in it, by those that
have one.  Behaviour: public/event_channel.h; Xen 4.17, common/event_channel.c and arch/x86/compat.c, for an
unprivileged domain; a privileged one may also act on others.
"""

import cython
from cython.cimports.paravirt.abi.constants import (
    DOMID_SELF,
    EBUSY,
    EFAULT,
    EINVAL,
    ENOENT,
    ENOSYS,
    EPERM,
    ESRCH,
    EVTCHN_FIFO_LINK_BITS,
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
    EVTCHNSTAT_closed,
    EVTCHNSTAT_interdomain,
    EVTCHNSTAT_ipi,
    EVTCHNSTAT_unbound,
    EVTCHNSTAT_virq,
)
from cython.cimports.paravirt.hypervisor.events import (
    alloc_port,
    alloc_unbound,
    bind_interdomain,
    bind_ipi,
    bind_vcpu,
    bind_virq,
    close_port,
    ensure_ports,
    expand_array,
    port_is_valid,
    reset_ports,
    send_from_guest,
    set_priority,
    unmask,
)
from cython.cimports.paravirt.hypervisor.events_fifo import fifo_init_control
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
from cython.cimports.paravirt.machine.cpu import GPR_RDI, U64Ptr

from paravirt.hypervisor.hypercalls.pirqs import NR_PIRQS

# Xen's own way to go on with a preempted reset; guests see it answered, though it is not in the header.
EVTCHNOP_RESET_CONT = cython.declare(u32, 14)
NAMED_PIRQS = cython.declare(u32, NR_PIRQS)
# struct evtchn_op: the command, and behind it the argument.
COMPAT_SIZE = cython.declare(u64, 28)
COMPAT_ARGUMENT = cython.declare(u64, 4)


def argument_size(command: u32) -> u64:
    """Bytes of an operation's argument; 0: there is no such operation."""
    if command in (EVTCHNOP_send, EVTCHNOP_unmask, EVTCHNOP_close):
        return 4
    if command in (EVTCHNOP_status, EVTCHNOP_init_control):
        return 24
    if command in (EVTCHNOP_bind_interdomain, EVTCHNOP_bind_virq, EVTCHNOP_bind_pirq):
        return 12
    if command in (EVTCHNOP_alloc_unbound, EVTCHNOP_bind_ipi, EVTCHNOP_bind_vcpu):
        return 8
    if command in (EVTCHNOP_expand_array, EVTCHNOP_set_priority):
        return 8
    if command in (EVTCHNOP_reset, EVTCHNOP_RESET_CONT):
        return 2
    return 0


def has_answer(command: u32) -> cython.bint:
    """Whether an operation that succeeds writes its argument back."""
    return command in (
        EVTCHNOP_status,
        EVTCHNOP_init_control,
        EVTCHNOP_alloc_unbound,
        EVTCHNOP_bind_interdomain,
        EVTCHNOP_bind_virq,
        EVTCHNOP_bind_pirq,
        EVTCHNOP_bind_ipi,
    )


def resolve(v: VcpuPtr, domid: u16) -> u16:
    """A domain's number as the caller gives it: it may mean itself by DOMID_SELF."""
    return v.domain.domid if domid == DOMID_SELF else domid


def find_domain(v: VcpuPtr, domid: u16) -> DomainPtr:
    """The domain that the caller names, or NULL."""
    number: u32 = resolve(v, domid)
    return v.domain.host.domains[number] if number < v.domain.host.max_domains else cython.NULL


def may_control(v: VcpuPtr, d: DomainPtr) -> cython.bint:
    """Whether the caller may act on that domain's ports."""
    return d == v.domain or v.domain.is_privileged


def op_alloc_unbound(v: VcpuPtr, a: cython.pointer(AllocUnbound)) -> i64:
    """A port for a domain to bind to.  As in Xen, whether there is one comes before whether it is allowed."""
    d: DomainPtr = find_domain(v, a.dom)
    port: i64
    if d == cython.NULL:
        return -ESRCH
    port = alloc_port(d)
    if port < 0:
        return port
    if not may_control(v, d):
        return -EPERM
    port = alloc_unbound(d, resolve(v, a.remote_dom))
    a.port = cython.cast(u32, port)
    return 0


def op_bind_interdomain(v: VcpuPtr, a: cython.pointer(BindInterdomain)) -> i64:
    """Bind to another domain's port, or to one of our own."""
    port: i64 = bind_interdomain(v.domain, resolve(v, a.remote_dom), a.remote_port)
    if port < 0:
        return port
    a.local_port = cython.cast(u32, port)
    return 0


def op_bind_virq(v: VcpuPtr, a: cython.pointer(BindVirq)) -> i64:
    """Bind a virtual interrupt."""
    port: i64 = bind_virq(v.domain, a.virq, a.vcpu)
    if port < 0:
        return port
    a.port = cython.cast(u32, port)
    return 0


def op_bind_pirq(v: VcpuPtr, a: cython.pointer(BindPirq)) -> i64:
    """No domain is given physical interrupts here."""
    return -EINVAL if a.pirq >= NAMED_PIRQS else -EPERM


def op_bind_ipi(v: VcpuPtr, a: cython.pointer(BindIpi)) -> i64:
    """Bind an interrupt between vcpus."""
    port: i64 = bind_ipi(v.domain, a.vcpu)
    if port < 0:
        return port
    a.port = cython.cast(u32, port)
    return 0


def op_status(v: VcpuPtr, a: cython.pointer(Status)) -> i64:
    """What a port is.  As in Xen, whether it is valid comes before whether one may know."""
    d: DomainPtr = find_domain(v, a.dom)
    p: PortPtr
    if d == cython.NULL:
        return -ESRCH
    if not port_is_valid(d, a.port):
        return -EINVAL
    if not may_control(v, d):
        return -EPERM
    p = cython.address(d.ports[a.port])
    a.status = EVTCHNSTAT_closed
    if p.state == PORT_UNBOUND:
        a.status = EVTCHNSTAT_unbound
        a.remote_dom = p.remote_domid
    elif p.state == PORT_INTERDOMAIN:
        a.status = EVTCHNSTAT_interdomain
        a.remote_dom = p.remote_domid
        a.remote_port = p.remote_port
    elif p.state == PORT_VIRQ:
        a.status = EVTCHNSTAT_virq
        a.remote_dom = p.virq
        a.remote_dom_high = 0
    elif p.state == PORT_IPI:
        a.status = EVTCHNSTAT_ipi
    a.vcpu = p.notify_vcpu
    return 0


def op_reset(v: VcpuPtr, args: U64Ptr, domid: u16, continued: cython.bint) -> i64:
    """Close all ports, some at a time: -EBUSY for a second reset meanwhile, and for going on where none is begun."""
    d: DomainPtr = find_domain(v, domid)
    if d == cython.NULL:
        return -ESRCH
    if not may_control(v, d):
        return -EPERM
    if d != v.domain and not d.paused:
        return -EINVAL
    if continued != (d.next_evtchn != 0):
        return -EBUSY
    return 0 if reset_ports(d) else continue_reset(v, args)


def continue_reset(v: VcpuPtr, args: U64Ptr) -> i64:
    """Have the guest go on with its reset."""
    args[0] = EVTCHNOP_RESET_CONT
    v.preempted = 1
    if not v.in_multicall:
        v.cpu.gpr[GPR_RDI] = EVTCHNOP_RESET_CONT
        v.cpu.rip -= 2  # to the syscall instruction
    return v.hypercall


def op_init_control(v: VcpuPtr, a: cython.pointer(InitControl)) -> i64:
    """The FIFO control block of a vcpu."""
    d: DomainPtr = v.domain
    a.link_bits = EVTCHN_FIFO_LINK_BITS
    if a.vcpu >= d.nr_vcpus:
        return -ENOENT
    return fifo_init_control(d, d.vcpus[a.vcpu], a.control_gfn, a.offset)


def bind_something(v: VcpuPtr, command: u32, a: cython.pointer(Argument)) -> i64:
    """The operations that make ports."""
    if command == EVTCHNOP_bind_ipi:
        return op_bind_ipi(v, cython.address(a.bind_ipi))
    if command == EVTCHNOP_bind_virq:
        return op_bind_virq(v, cython.address(a.bind_virq))
    if command == EVTCHNOP_alloc_unbound:
        return op_alloc_unbound(v, cython.address(a.alloc_unbound))
    if command == EVTCHNOP_bind_interdomain:
        return op_bind_interdomain(v, cython.address(a.bind_interdomain))
    return op_bind_pirq(v, cython.address(a.bind_pirq))


def carry_out(v: VcpuPtr, args: U64Ptr, command: u32, a: cython.pointer(Argument)) -> i64:
    """One operation, on its copied argument."""
    d: DomainPtr = v.domain
    if command == EVTCHNOP_send:
        return send_from_guest(v, a.port)
    if command == EVTCHNOP_unmask:
        return unmask(d, a.port)
    if command == EVTCHNOP_close:
        return close_port(d, a.port)
    if command == EVTCHNOP_bind_vcpu:
        return bind_vcpu(d, a.bind_vcpu.port, a.bind_vcpu.vcpu)
    if command == EVTCHNOP_status:
        return op_status(v, cython.address(a.status))
    if command == EVTCHNOP_init_control:
        return op_init_control(v, cython.address(a.init_control))
    if command == EVTCHNOP_expand_array:
        return expand_array(d, a.expand_array.array_gfn)
    if command == EVTCHNOP_set_priority:
        return set_priority(d, a.set_priority.port, a.set_priority.priority)
    if command in (EVTCHNOP_reset, EVTCHNOP_RESET_CONT):
        return op_reset(v, args, a.dom, command == EVTCHNOP_RESET_CONT)
    return bind_something(v, command, a)


def do_event_channel_op(host: HostPtr, v: VcpuPtr, args: U64Ptr) -> i64:
    """HYPERVISOR_event_channel_op(command, argument)."""
    argument: Argument
    command: u32 = cython.cast(u32, args[0])
    size: u64 = argument_size(command)
    rc: i64
    if size == 0:
        return -ENOSYS
    if copy_from_guest(v, cython.address(argument), args[1], size) != 0:
        return -EFAULT
    # A domain has its first ports from the start, bound or not.
    ensure_ports(v.domain, 1)
    rc = carry_out(v, args, command, cython.address(argument))
    # What was bound stays bound if the answer cannot be written, as in Xen.
    if rc == 0 and has_answer(command) and copy_to_guest(v, args[1], cython.address(argument), size) != 0:
        return -EFAULT
    return rc


def do_event_channel_op_compat(host: HostPtr, v: VcpuPtr, args: U64Ptr) -> i64:
    """HYPERVISOR_event_channel_op_compat(operation): command and argument in one structure; ten commands."""
    words: u32[7]
    call: u64[2]
    if copy_from_guest(v, words, args[0], COMPAT_SIZE) != 0:
        return -EFAULT
    if words[0] > EVTCHNOP_unmask:
        return -ENOSYS
    call[0] = words[0]
    call[1] = args[0] + COMPAT_ARGUMENT
    return do_event_channel_op(host, v, call)
