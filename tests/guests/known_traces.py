"""Where the traces of a test kernel differ between the engines, exit by exit, and why.

The first list was taken on a KVM host with shadow page tables that runs ring 3 of its guests in its own ring 3
(docs/conformance.md calls it *shadow host*); most of it follows from the differing answers in known.py.
"""

from __future__ import annotations

from .traces import Place

_NO_NM: Place = (("#NM(0)", "iret"), ())
_INS_OUTS = tuple(((f"#PF({error})",), ("#GP, carried out",)) for error in (3, 2, 0, 2, 0))

KNOWN: dict[str, tuple[str, tuple[Place, ...]]] = {
    "debugregs": (
        "the host does not load DR0 to DR3: a breakpoint of execution is not hit",
        ((("#DB(0)", "iret", "console_io"), ()),),
    ),
    "fpu": (
        "the host does not honour CR0.TS; a failed check is printed, and the program of the last one runs to its int3",
        (*5 * (_NO_NM,), (("#NM(0)", "iret"), ("console_io",)), (("#NM(0)",), ("#BP(0)",))),
    ),
    "hostile.wildjump": (
        "a jump to what is no address: the processor faults at the jump, the emulator where it leads to",
        (((), ("#GP, carried out",)),),
    ),
    "io_privilege": (
        "the Unicorn engine looks for the memory of ins and outs before it asks for the port",
        (
            *_INS_OUTS,
            (("#PF(2)", "iret", "console_io", "console_io", "#PF(0)"), ("#GP(0)", "iret", "console_io", "#GP(0)")),
            (("console_io",), ()),
            (("#PF(0)",), ("#GP, carried out",)),
        ),
    ),
    "selectors": (
        "the host takes a far jump to a selector beyond all tables for no instruction",
        ((("#GP(0)", "iret", "console_io", "#GP, carried out"), ("#UD(0)", "iret", "console_io")),),
    ),
    "stale_translations": (
        "an entry was taken away without a flush: only an emulator's cache still has it",
        (((), ("#PF(2)", "iret")),),
    ),
}
"""By run: the reason, and the places in order."""

NOT_COMPARED = {
    "descriptors": "the host's selectors: which loads fault, and with them the failsafe callback, is another story "
    "from the first one on; the answers are compared line by line (known.py)",
    "ring0_pages": "the page of stubs is there, and jumps into it are other faults",
    "hypervisor_range": "it reads thousands of addresses behind the machine-to-phys table, which is elsewhere here",
    "tick": "what is held up between two ticks begins anew, as often as the host makes it so",
    "returns.ticks": "how many calls there are, and where a process is when its timer goes off, is a matter of time",
    "races": "a vcpu writes without a pause: how often it is refused until the other one looks is a matter of time",
}
"""Runs whose traces part for good, and why."""

ON_HARDWARE: dict[str, tuple[str, tuple[Place, ...]]] = {
    "debugregs": (
        "the Unicorn engine has no breakpoints of data, and says that its check failed",
        (((), ("#DB(0)", "iret", "console_io")), (("console_io",), ())),
    ),
    "io_privilege": KNOWN["io_privilege"],
    "privileged": (
        "the processor says #UD for xsetbv, the emulator #GP, of which the hypervisor makes it",
        (((), ("#UD(0)",)),),
    ),
    "stale_translations": KNOWN["stale_translations"],
}
"""The same on a host that runs its guests' ring 0 natively, from an emulated AMD processor with nested paging
(scripts/nested --traces)."""

NOT_COMPARED_ON_HARDWARE = {
    "races": NOT_COMPARED["races"],
    "returns.ticks": NOT_COMPARED["returns.ticks"],
    "tick": NOT_COMPARED["tick"],
    "ring0_pages": "a page fault at the engine's own pages says that there is a page",
}


def known(shadow_host: bool) -> dict[str, tuple[str, tuple[Place, ...]]]:
    """What differs on a shadow host, or on one that runs its guests' ring 0 natively (scripts/nested)."""
    return KNOWN if shadow_host else ON_HARDWARE


def not_compared(shadow_host: bool) -> dict[str, str]:
    """The runs whose traces part for good there, and why."""
    return NOT_COMPARED if shadow_host else NOT_COMPARED_ON_HARDWARE
