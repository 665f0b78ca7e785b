"""What the fuzzer's numbers are called."""

from __future__ import annotations

from paravirt.abi.names import has_operations, hypercall_name, operation_name

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
    if sub == NO_SUCH:
        return f"{family} (no such command)"
    if has_operations(family):
        return f"{family} {operation_name(family, sub)}"
    return family if sub == 0 else f"{family} {sub}"


def _hypercall(op: int) -> str:
    return "(no such hypercall)" if op == 64 else hypercall_name(op)
