"""What the fuzzer's numbers are called."""

from __future__ import annotations

from types import ModuleType

from paravirt.abi import (
    callback,
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
    "set_segment_base": (xen, "SEGBASE_"),
    "vm_assist": (xen, "VMASST_TYPE_"),
}
PT_WRITE = 0x1000
_WRITES = {2: "mov", 3: "xchg", 4: "btr", 5: "cmpxchg", 6: "mov of half an entry"}
WILD = PT_WRITE + 1
NO_SUCH = 99


def name_of(op: int, sub: int) -> str:
    """A hypercall and a sub-operation of guests/fuzz in words."""
    if sub == WILD:
        return f"{_hypercall(op)} (anything at all)"
    if sub == PT_WRITE + 7:
        return "load of a selector from GDT or LDT"
    if sub > PT_WRITE:
        return f"page-table write by {_WRITES[sub - PT_WRITE]}"
    family = _hypercall(op)
    if family not in _PREFIXES:
        return family if sub == 0 else f"{family} {sub}"
    if sub == NO_SUCH:
        return f"{family} (no such command)"
    module, prefix = _PREFIXES[family]
    for name, value in vars(module).items():
        if name.startswith(prefix) and value == sub:
            return f"{family} {name}"
    return f"{family} {sub}"


def _hypercall(op: int) -> str:
    if op == 64:
        return "(no such hypercall)"
    found = next((name for name, number in xen.HYPERCALLS.items() if number == op), None)
    return str(op) if found is None else found.removeprefix("__HYPERVISOR_")
