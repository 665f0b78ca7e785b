"""Event channels: sub-operations, channel states, both ABIs' limits.

Public header: ``xen/event_channel.h`` (Xen 4.17).
"""

from ctypes import LittleEndianStructure, LittleEndianUnion, c_uint8, c_uint16, c_uint32, c_uint64

# event_channel_op: sub-operations.
EVTCHNOP_bind_interdomain = 0
EVTCHNOP_bind_virq = 1
EVTCHNOP_bind_pirq = 2
EVTCHNOP_close = 3
EVTCHNOP_send = 4
EVTCHNOP_status = 5
EVTCHNOP_alloc_unbound = 6
EVTCHNOP_bind_ipi = 7
EVTCHNOP_bind_vcpu = 8
EVTCHNOP_unmask = 9
EVTCHNOP_reset = 10
EVTCHNOP_init_control = 11
EVTCHNOP_expand_array = 12
EVTCHNOP_set_priority = 13

# BindPirq.flags.
BIND_PIRQ__WILL_SHARE = 1

# EvtchnStatus.status.
EVTCHNSTAT_closed = 0
EVTCHNSTAT_unbound = 1
EVTCHNSTAT_interdomain = 2
EVTCHNSTAT_pirq = 3
EVTCHNSTAT_virq = 4
EVTCHNSTAT_ipi = 5

# The two-level ABI.
EVTCHN_2L_NR_CHANNELS = 4096

# The FIFO ABI: priorities (0 is served first) and queues.
EVTCHN_FIFO_PRIORITY_MAX = 0
EVTCHN_FIFO_PRIORITY_DEFAULT = 7
EVTCHN_FIFO_PRIORITY_MIN = 15
EVTCHN_FIFO_MAX_QUEUES = 16

# The FIFO ABI: bit numbers in an event word.
EVTCHN_FIFO_PENDING = 31
EVTCHN_FIFO_MASKED = 30
EVTCHN_FIFO_LINKED = 29
EVTCHN_FIFO_BUSY = 28

# The FIFO ABI: the link field of an event word.
EVTCHN_FIFO_LINK_BITS = 17
EVTCHN_FIFO_LINK_MASK = 131071
EVTCHN_FIFO_NR_CHANNELS = 1 << EVTCHN_FIFO_LINK_BITS


class EvtchnAllocUnbound(LittleEndianStructure):
    """EVTCHNOP_alloc_unbound."""

    _fields_ = [
        ("dom", c_uint16),
        ("remote_dom", c_uint16),
        ("port", c_uint32),
    ]


class EvtchnBindInterdomain(LittleEndianStructure):
    """EVTCHNOP_bind_interdomain."""

    _fields_ = [
        ("remote_dom", c_uint16),
        ("remote_port", c_uint32),
        ("local_port", c_uint32),
    ]


class EvtchnBindVirq(LittleEndianStructure):
    """EVTCHNOP_bind_virq."""

    _fields_ = [
        ("virq", c_uint32),
        ("vcpu", c_uint32),
        ("port", c_uint32),
    ]


class EvtchnBindPirq(LittleEndianStructure):
    """EVTCHNOP_bind_pirq."""

    _fields_ = [
        ("pirq", c_uint32),
        ("flags", c_uint32),
        ("port", c_uint32),
    ]


class EvtchnBindIpi(LittleEndianStructure):
    """EVTCHNOP_bind_ipi."""

    _fields_ = [
        ("vcpu", c_uint32),
        ("port", c_uint32),
    ]


class EvtchnClose(LittleEndianStructure):
    """EVTCHNOP_close."""

    _fields_ = [
        ("port", c_uint32),
    ]


class EvtchnSend(LittleEndianStructure):
    """EVTCHNOP_send."""

    _fields_ = [
        ("port", c_uint32),
    ]


class _StatusUnbound(LittleEndianStructure):
    """The domain that may bind."""

    _fields_ = [
        ("dom", c_uint16),
    ]


class _StatusInterdomain(LittleEndianStructure):
    """The other end."""

    _fields_ = [
        ("dom", c_uint16),
        ("port", c_uint32),
    ]


class _EvtchnStatusDetail(LittleEndianUnion):
    """By status."""

    _fields_ = [
        ("unbound", _StatusUnbound),
        ("interdomain", _StatusInterdomain),
        ("pirq", c_uint32),
        ("virq", c_uint32),
    ]


class EvtchnStatus(LittleEndianStructure):
    """EVTCHNOP_status."""

    _fields_ = [
        ("dom", c_uint16),
        ("port", c_uint32),
        ("status", c_uint32),
        ("vcpu", c_uint32),
        ("u", _EvtchnStatusDetail),
    ]


class EvtchnBindVcpu(LittleEndianStructure):
    """EVTCHNOP_bind_vcpu."""

    _fields_ = [
        ("port", c_uint32),
        ("vcpu", c_uint32),
    ]


class EvtchnUnmask(LittleEndianStructure):
    """EVTCHNOP_unmask."""

    _fields_ = [
        ("port", c_uint32),
    ]


class EvtchnReset(LittleEndianStructure):
    """EVTCHNOP_reset."""

    _fields_ = [
        ("dom", c_uint16),
    ]


class EvtchnInitControl(LittleEndianStructure):
    """EVTCHNOP_init_control; `offset` is in bytes within the frame."""

    _fields_ = [
        ("control_gfn", c_uint64),
        ("offset", c_uint32),
        ("vcpu", c_uint32),
        ("link_bits", c_uint8),
        ("_pad", c_uint8 * 7),
    ]


class EvtchnExpandArray(LittleEndianStructure):
    """EVTCHNOP_expand_array."""

    _fields_ = [
        ("array_gfn", c_uint64),
    ]


class EvtchnSetPriority(LittleEndianStructure):
    """EVTCHNOP_set_priority."""

    _fields_ = [
        ("port", c_uint32),
        ("priority", c_uint32),
    ]


class _EvtchnOpArg(LittleEndianUnion):
    """By command."""

    _fields_ = [
        ("alloc_unbound", EvtchnAllocUnbound),
        ("bind_interdomain", EvtchnBindInterdomain),
        ("bind_virq", EvtchnBindVirq),
        ("bind_pirq", EvtchnBindPirq),
        ("bind_ipi", EvtchnBindIpi),
        ("close", EvtchnClose),
        ("send", EvtchnSend),
        ("status", EvtchnStatus),
        ("bind_vcpu", EvtchnBindVcpu),
        ("unmask", EvtchnUnmask),
    ]


class EvtchnOp(LittleEndianStructure):
    """Argument of the old hypercall event_channel_op_compat."""

    _fields_ = [
        ("cmd", c_uint32),
        ("u", _EvtchnOpArg),
    ]


class EvtchnFifoControlBlock(LittleEndianStructure):
    """One vcpu's FIFO queues: which are ready, and the port at the head of each."""

    _fields_ = [
        ("ready", c_uint32),
        ("_rsvd", c_uint32),
        ("head", c_uint32 * EVTCHN_FIFO_MAX_QUEUES),
    ]
