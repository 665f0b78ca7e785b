"""Where paravirt answers otherwise than the oracle, line by line, and why (docs/conformance.md has the table).

A transcript is compared with these lines put in the place of real Xen's, and nothing else: an answer that becomes
real Xen's, or another wrong one, fails the test until this list says what is true.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Difference:
    """In the answers of ``run``, ``theirs`` (consecutive lines of real Xen's) are ``ours``, because of ``reason``."""

    run: str
    theirs: tuple[str, ...]
    ours: tuple[str, ...]
    reason: str


_WATCHPOINTS = "the Unicorn engine has breakpoints of execution only: data breakpoints do not fire"

DIFFERENCES = (
    Difference(
        "debugregs",
        ("watched write: #DB at +10", "dr6=ffff0ff1"),
        ("watched write: no fault", "dr6=ffff0ff0", "FAILED: fault.vector == 1 (main.c:76)"),
        _WATCHPOINTS,
    ),
    Difference("debugregs", ("TEST debugregs: PASS",), ("TEST debugregs: FAIL 1",), _WATCHPOINTS),
    Difference(
        "grants",
        ("entries in use: 0", "entry 0: flags 0 domid 0", "entry 1: flags 0 domid 0"),
        ("entries in use: 2", "entry 0: flags 1 domid 0", "entry 1: flags 1 domid 0"),
        "our toolstack grants the console's and xenstore's rings to Domain 0, as xl does; the oracle's domain is made "
        "without xl",
    ),
    Difference(
        "msrs",
        ("write UCODE_REV as it reads: #GP(0)",),
        ("write UCODE_REV as it reads: no fault",),
        "our processor is an Intel one, to which Xen allows this write of zero; the oracle's is an AMD one",
    ),
    Difference(
        "privileged",
        ("insb: #GP(0) at +0", "  moved 0, byte 61"),
        ("insb: #GP(0) at +0", "  moved 0, byte 0"),
        "the Unicorn engine stores a zero to see whether it can, before it asks for the port",
    ),
    Difference(
        "return_targets",
        ("  attack: running off the end: #GP(0), rip is 2^47: 1",),
        ("  attack: running off the end: #GP(0), rip is 2^47: 0",),
        "at a non-canonical address the Unicorn engine's #GP shows where the block before it began",
    ),
)

BY_XL = (
    Difference(
        "errors",
        ("physdev_op 19: -ENODEV, bad pointer: -EFAULT",),
        ("physdev_op 19: -EPERM, bad pointer: -EFAULT",),
        "Linux as dom0 tells Xen of the PCI devices; in the oracle's other machine, as in ours, there is none",
    ),
    Difference(
        "errors",
        ("physdev_op 27: -ENODEV, bad pointer: -EFAULT",),
        ("physdev_op 27: -EPERM, bad pointer: -EFAULT",),
        "the same",
    ),
    Difference(
        "grants",
        ("entries in use: 0", "entry 0: flags 0 domid 0", "entry 1: flags 0 domid 0"),
        ("entries in use: 2", "entry 0: flags 19 domid 0", "entry 1: flags 19 domid 0"),
        "xl grants the two rings to dom0, whose daemons map them: flags say so",
    ),
)
"""Where a domain made by Xen's own xl answers otherwise than the oracle's (``theirs``), on real Xen too."""

_SHADOW = "a KVM host that runs ring 3 in its own ring 3"
ON_KVM = {
    "cpuid": f"{_SHADOW}: the plain cpuid can be the host's",
    "debugregs": "the KVM engine does not load DR0 to DR3",
    "descriptors": f"{_SHADOW}: selectors are the host's",
    "exceptions": "a write to the machine-to-phys table at its usual address finds no page; icebp is a fault",
    "foreign_frames": f"{_SHADOW}: a store into a page table can be reported as to a page that is not there",
    "fpu": f"{_SHADOW}: CR0.TS raises no #NM",
    "hypervisor_range": "the machine-to-phys table is in slot 257, and read by emulation in slot 256",
    "iret": f"{_SHADOW}: NT is lost",
    "pinning": "the machine-to-phys table is in slot 257",
    "privileged": f"{_SHADOW}: verr, verw, lar and lsl use the host's descriptors; monitor is #GP",
    "return_targets": f"{_SHADOW}: running off the lower half is a page fault; NT is lost",
    "selectors": f"{_SHADOW}: selectors are the host's",
    "start": "the machine-to-phys table is in slot 257, and selectors are the host's",
    "syscalls": f"{_SHADOW}: syscall in 32-bit code is #UD",
}
"""Kernels that can answer otherwise on the experimental KVM engine, and why; which of them do depends on the host."""


def expected(run: str, lines: list[str], differences: tuple[Difference, ...] = DIFFERENCES) -> list[str]:
    """Real Xen's answers as paravirt is known to give them, or as another list has it.

    Raises ValueError when the transcript has not exactly one place for a difference.
    """
    result = list(lines)
    for difference in differences:
        if difference.run != run:
            continue
        size = len(difference.theirs)
        places = [i for i in range(len(result)) if tuple(result[i : i + size]) == difference.theirs]
        if len(places) != 1:
            raise ValueError(f"{len(places)} places in the transcript of {run} for {difference.theirs}")
        result[places[0] : places[0] + size] = difference.ours
    return result
