"""The names of hypercalls, of their sub-operations and of errors, by number: for whoever shows them."""

from __future__ import annotations

from types import ModuleType

from . import (
    arch_x86,
    callback,
    errno,
    event_channel,
    grant_table,
    hvm_op,
    memory,
    nmi,
    physdev,
    sched,
    vcpu,
    version,
    xen,
)

_PREFIXES: dict[str, tuple[ModuleType, str]] = {
    "memory_op": (memory, "XENMEM_"),
    "grant_table_op": (grant_table, "GNTTABOP_"),
    "event_channel_op": (event_channel, "EVTCHNOP_"),
    "event_channel_op_compat": (event_channel, "EVTCHNOP_"),
    "vcpu_op": (vcpu, "VCPUOP_"),
    "sched_op": (sched, "SCHEDOP_"),
    "sched_op_compat": (sched, "SCHEDOP_"),
    "mmuext_op": (xen, "MMUEXT_"),
    "xen_version": (version, "XENVER_"),
    "physdev_op": (physdev, "PHYSDEVOP_"),
    "physdev_op_compat": (physdev, "PHYSDEVOP_"),
    "callback_op": (callback, "CALLBACKOP_"),
    "nmi_op": (nmi, "XENNMI_"),
    "hvm_op": (hvm_op, "HVMOP_"),
    "mmu_update": (xen, "MMU_"),
    "set_segment_base": (arch_x86, "SEGBASE_"),
    "vm_assist": (xen, "VMASST_TYPE_"),
}


def _of_value(module: ModuleType, prefix: str, value: int) -> str | None:
    return next((name for name, found in vars(module).items() if name.startswith(prefix) and found == value), None)


def hypercall_name(number: int) -> str:
    """A hypercall's name, without its prefix; its number where there is none."""
    return next((name for name, found in xen.HYPERCALLS.items() if found == number), str(number))


def has_operations(hypercall: str) -> bool:
    """Whether a hypercall has sub-operations."""
    return hypercall in _PREFIXES


def operation_name(hypercall: str, number: int) -> str:
    """The name of a sub-operation of a hypercall with such; its number where there is none."""
    module, prefix = _PREFIXES[hypercall]
    return _of_value(module, prefix, number) or str(number)


def error_name(number: int) -> str:
    """A negative error number as a guest gets it: -EINVAL, or the number itself where there is no such error."""
    name = _of_value(errno, "E", -number)
    return f"-{name}" if name else str(number)


def status_name(number: int) -> str:
    """The status of a request about grants."""
    return _of_value(grant_table, "GNTST_", number) or str(number)
