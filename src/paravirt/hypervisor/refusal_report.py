"""What a guest was last refused, in words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

from paravirt.abi.names import error_name, has_operations, hypercall_name, operation_name, status_name
from paravirt.abi.xen import __HYPERVISOR_grant_table_op as GRANT_TABLE_OP
from paravirt.abi.xen import __HYPERVISOR_memory_op as MEMORY_OP

from .audit_report import describe_entry, describe_frame, type_name

SEGMENT_DESCRIPTORS = 5
OPERATION_BITS = {MEMORY_OP: 6, GRANT_TABLE_OP: 12}
"""Where only the low bits of the first argument say which sub-operation it is: how many."""
LENGTH_OF_SYSCALL = 2


class Answer(IntEnum):
    """What a refused request got (records.pxd has the same numbers)."""

    ERROR = 1
    STATUS = 2
    COUNT = 3


FrameInfo = tuple[int, int, int, int, int]
"""Owner, type, uses, references and flags."""


@dataclass(frozen=True)
class Refusal:
    """A request that a vcpu was refused, as things were then.

    Attributes:
        hypercall: its number; None: it was a plain write to a page table.
        command: of a hypercall on a list of requests, the one of the request that was refused; None: see ``arguments``.
        arguments: the hypercall's first four.
        how: what the answer is.
        answer: what the guest got.
        age: ns since then.
        rip: behind the hypercall, or of the instruction that writes.
        kind: the type of the table whose entry was refused; None: there is none.
        at: machine address of that entry.
        entry: what it was to be.
        table: the frame where it is; None: no such frame.
        mfn: the frame that was refused, or that the entry names; None: no frame is to blame.
        frame: that frame; None: no such frame.
    """

    hypercall: int | None
    command: int | None
    arguments: tuple[int, ...]
    how: Answer
    answer: int
    age: int
    rip: int
    kind: int | None
    at: int
    entry: int
    table: FrameInfo | None
    mfn: int | None
    frame: FrameInfo | None


def describe_refusal(refusal: Refusal, where: Callable[[int], str]) -> list[str]:
    """What was asked for and refused, and the frames that it was about.

    Args:
        where: an address of the guest's in words.
    """
    rip = refusal.rip if refusal.hypercall is None else refusal.rip - LENGTH_OF_SYSCALL
    lines = [
        f"  last refused, {refusal.age / 1e6:.3f} ms before: {_name(refusal)}, {_answer(refusal)}",
        f"    at {where(rip)}",
    ]
    if refusal.hypercall is not None:
        lines.append("    arguments " + " ".join(f"{argument:#x}" for argument in refusal.arguments))
    if refusal.kind is not None:
        index, mfn = refusal.at >> 3 & 511, refusal.at >> 12
        shown = f"{refusal.entry:016x}" if refusal.kind == SEGMENT_DESCRIPTORS else describe_entry(refusal.entry)
        what = "descriptor" if refusal.kind == SEGMENT_DESCRIPTORS else f"{type_name(refusal.kind).split()[0]} entry"
        lines.append(f"    {what} {index}: {shown}")
        lines.append(f"      in {describe_frame(mfn, refusal.table)}")
    if refusal.mfn is not None:
        lines.append(f"      {'of ' if refusal.kind else ''}{describe_frame(refusal.mfn, refusal.frame)}")
    return lines


def _answer(refusal: Refusal) -> str:
    if refusal.how is Answer.STATUS:
        return f"status {status_name(refusal.answer)}"
    if refusal.how is Answer.COUNT:
        return f"after {refusal.answer} of its list"
    return f"error {error_name(refusal.answer)}"


def _name(refusal: Refusal) -> str:
    number = refusal.hypercall
    if number is None:
        return "write to a page table"
    name = hypercall_name(number)
    if not has_operations(name):
        return name
    operation = refusal.command
    if operation is None:
        operation = refusal.arguments[0] & ((1 << OPERATION_BITS.get(number, 32)) - 1)
    return f"{name} {operation_name(name, operation)}"
