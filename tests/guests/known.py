"""Where paravirt answers otherwise than the oracle, line by line, and why (docs/conformance.md has the table).

A transcript is compared with these lines put in the place of real Xen's, and nothing else: an answer that becomes
real Xen's, or another wrong one, fails the test until this list says what is true.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Difference:
    """In the answers of ``run``, ``theirs`` (consecutive lines of real Xen's) are ``ours``, because of ``reason``.

    ``engine`` is the one that makes the difference, empty for all; a KVM engine makes it unless its capabilities or
    findings say that the host has ``unless``.
    """

    run: str
    theirs: tuple[str, ...]
    ours: tuple[str, ...]
    reason: str
    engine: str = ""
    unless: str = ""


_WATCHPOINTS = "the Unicorn engine has breakpoints of execution only: data breakpoints do not fire"
_STRING_FIRST = "the Unicorn engine looks for the memory of ins and outs before it asks for the port"

_REFUSED_INS = (
    "  insb: #GP; rip and registers as before, memory as before",
    "  rep insb: #GP; rip and registers as before, memory as before",
)
_INS_THAT_STORED = (
    "  insb: #GP; rip and registers as before, memory changed",
    "  rep insb: #GP; rip and registers as before, memory changed",
)

DIFFERENCES = (
    Difference(
        "debugregs",
        ("watched write: #DB at +10", "dr6=ffff0ff1"),
        ("watched write: no fault", "dr6=ffff0ff0", "FAILED: fault.vector == 1 (main.c:76)"),
        _WATCHPOINTS,
        "unicorn",
    ),
    Difference("debugregs", ("TEST debugregs: PASS",), ("TEST debugregs: FAIL 1",), _WATCHPOINTS, "unicorn"),
    Difference(
        "grants",
        ("entries in use: 0", "entry 0: flags 0 domid 0", "entry 1: flags 0 domid 0"),
        ("entries in use: 2", "entry 0: flags 19 domid 0", "entry 1: flags 19 domid 0"),
        "our toolstack grants the console's and xenstore's rings to Domain 0, as xl does; the oracle's domain is made "
        "without xl",
    ),
    Difference(
        "io_privilege",
        ("  on a read-only page: ins #PF 2 at 8, outs no fault; they moved by 0 and 4",),
        ("  on a read-only page: ins #PF 3 at 8, outs no fault; they moved by 0 and 4",),
        _STRING_FIRST,
        "unicorn",
    ),
    Difference(
        "io_privilege",
        ("  in the hypervisor's range: ins #GP, outs #GP; they moved by 0 and 0",),
        (
            "  in the hypervisor's range: ins #PF 2 at -137438953472000, outs #PF 0 at -137438953472000; "
            "they moved by 0 and 0",
        ),
        _STRING_FIRST,
        "unicorn",
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
        "unicorn",
    ),
    Difference(
        "ring0_pages",
        _REFUSED_INS,
        _INS_THAT_STORED,
        _STRING_FIRST,
        "unicorn",
    ),
    Difference(
        "return_targets",
        ("  attack: running off the end: #GP(0), rip is 2^47: 1",),
        ("  attack: running off the end: #GP(0), rip is 2^47: 0",),
        "at a non-canonical address the Unicorn engine's #GP shows where the block before it began",
        "unicorn",
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

_SELECTORS = (
    "a KVM host that runs ring 3 of its guests in its own ring 3 has its own segments there: what reads selectors or "
    "asks after descriptors sees the host's, and a selector that the host does not have is null to the processor"
)
_TABLES = (
    "the KVM engine gives the processor a descriptor table of its own, in which lsl and lar do not find the guest's"
)
_FAR_JUMP = "a KVM host that runs ring 3 of its guests in its own ring 3 takes this far jump for no instruction at all"
_CPUID = "a KVM host that runs ring 3 of its guests in its own ring 3 does not see a plain cpuid"
_BREAKPOINTS = "this KVM host does not load DR0 to DR3"
_TS = "this KVM host does not honour CR0.TS"
_SLOT = "this KVM host's guests cannot use L4 slot 256: the machine-to-phys table is in slot 257"
_STUBS = (
    "on a KVM host whose `syscall` arrives in ring 3, ring 3 can read and run the page of stubs: fixed code, which "
    "does nothing for who jumps there but to fault, or what `syscall` does"
)
_STUBS_AND_QUEUE = (
    _STUBS + "; a guest's kernel, and nobody else, also has stubs that answer hypercalls, and a page that it may write "
    "to, where they queue its updates of page tables: what is found there is checked like any other request of it"
)
_PORT = (
    "where ring 3 runs the stub of `syscall`, the stubs' port is open there, and the host carries out what code does "
    "to it, before that is taken back: where a prefix began cannot be known, nor what memory had"
)
_NT = "a KVM host that runs ring 3 of its guests in its own ring 3 takes NT out of the flags"

ON_KVM = (
    Difference(
        "cpuid",
        ("same vendor as by the prefix: 1",),
        ("same vendor as by the prefix: 0",),
        _CPUID,
        "kvm",
        "real_selectors",
    ),
    Difference(
        "debugregs",
        ("watched write: #DB at +10", "dr6=ffff0ff1"),
        ("watched write: no fault", "dr6=ffff0ff0", "FAILED: fault.vector == 1 (main.c:76)"),
        _BREAKPOINTS,
        "kvm",
        "honours_debug_registers",
    ),
    Difference(
        "debugregs",
        ("execution: #DB at +1", "dr6=ffff0ff2"),
        ("execution: no fault", "dr6=ffff0ff0"),
        _BREAKPOINTS,
        "kvm",
        "honours_debug_registers",
    ),
    Difference(
        "debugregs",
        ("TEST debugregs: PASS",),
        ("TEST debugregs: FAIL 1",),
        _BREAKPOINTS,
        "kvm",
        "honours_debug_registers",
    ),
    Difference(
        "descriptors",
        (
            "data, index 1 (b): no fault, es=b",
            "data, index 1, rpl 0 (8): no fault, es=8",
            "code, index 2 (13): no fault, es=13",
            "empty, index 5 (2b): #GP(28), es=0",
        ),
        (
            "data, index 1 (b): no fault, es=0",
            "data, index 1, rpl 0 (8): no fault, es=0",
            "code, index 2 (13): no fault, es=0",
            "empty, index 5 (2b): no fault, es=2b",
        ),
        _SELECTORS,
        "kvm",
        "real_selectors",
    ),
    Difference(
        "descriptors",
        (
            "Xen's code32 (e023): no fault, es=e023",
            "Xen's data (e02b): no fault, es=e02b",
            "Xen's code64 (e033): no fault, es=e033",
        ),
        (
            "Xen's code32 (e023): no fault, es=0",
            "Xen's data (e02b): no fault, es=0",
            "Xen's code64 (e033): no fault, es=0",
        ),
        _SELECTORS,
        "kvm",
        "real_selectors",
    ),
    Difference("descriptors", ("limit of index 1: ffffffff ok=1",), ("limit of index 1: 0 ok=0",), _TABLES, "kvm"),
    Difference(
        "descriptors",
        ("index 8 (43): no fault, es=43",),
        ("index 8 (43): no fault, es=0",),
        _SELECTORS,
        "kvm",
        "real_selectors",
    ),
    Difference(
        "descriptors",
        ("index 0 (7): no fault, es=7",),
        ("index 0 (7): no fault, es=0",),
        _SELECTORS,
        "kvm",
        "real_selectors",
    ),
    Difference(
        "descriptors",
        ("DPL 0 (17): no fault, es=17",),
        ("DPL 0 (17): no fault, es=0",),
        _SELECTORS,
        "kvm",
        "real_selectors",
    ),
    Difference(
        "descriptors",
        ("updated (1f): no fault, es=1f",),
        ("updated (1f): no fault, es=0",),
        _SELECTORS,
        "kvm",
        "real_selectors",
    ),
    Difference(
        "descriptors",
        (
            "bad ds: failsafe callbacks=1 ds=4b es=0 fs=0 gs=0 cs=e030 mask saved=1, es now=0",
            "bad es: failsafe callbacks=1 ds=0 es=4b fs=0 gs=0 cs=e030 mask saved=1, es now=0",
            "bad fs: failsafe callbacks=1 ds=0 es=0 fs=4b gs=0 cs=e030 mask saved=1, es now=0",
            "bad gs: failsafe callbacks=1 ds=0 es=0 fs=0 gs=4b cs=e030 mask saved=1, es now=0",
            "all bad: failsafe callbacks=1 ds=4b es=4b fs=4b gs=4b cs=e030 mask saved=1, es now=0",
        ),
        tuple(
            f"{which}: failsafe callbacks=0, es now=0" for which in ("bad ds", "bad es", "bad fs", "bad gs", "all bad")
        ),
        _SELECTORS,
        "kvm",
        "real_selectors",
    ),
    Difference(
        "descriptors",
        ("all good: failsafe callbacks=0, es now=43",),
        ("all good: failsafe callbacks=0, es now=0",),
        _SELECTORS,
        "kvm",
        "real_selectors",
    ),
    Difference(
        "fpu",
        ("x87 with TS: #NM at +0", "TS in the handler's wake: 0"),
        ("x87 with TS: no fault", "FAILED: x87 with TS: expected #NM(0)", "TS in the handler's wake: 1"),
        _TS,
        "kvm",
        "honours_ts",
    ),
    Difference(
        "fpu",
        ("SSE with TS: #NM at +0", "fwait with TS: #NM at +0"),
        (
            "SSE with TS: no fault",
            "FAILED: SSE with TS: expected #NM(0)",
            "fwait with TS: no fault",
            "FAILED: fwait with TS: expected #NM(0)",
        ),
        _TS,
        "kvm",
        "honours_ts",
    ),
    Difference(
        "fpu",
        ("x87 with TS: #NM at +0", "TS by mov to cr0: #NM at +0"),
        (
            "x87 with TS: no fault",
            "FAILED: x87 with TS: expected #NM(0)",
            "TS by mov to cr0: no fault",
            "FAILED: TS by mov to cr0: expected #NM(0)",
        ),
        _TS,
        "kvm",
        "honours_ts",
    ),
    Difference(
        "fpu",
        ("#NM returns to the instruction: handler ran 1", "user x87 with TS: #NM at +0"),
        ("#NM returns to the instruction: handler ran 0", "FAILED: nm == 1 (main.c:65)", "user x87 with TS: #BP at +3"),
        _TS,
        "kvm",
        "honours_ts",
    ),
    Difference("fpu", ("TEST fpu: PASS",), ("TEST fpu: FAIL 6",), _TS, "kvm", "honours_ts"),
    Difference(
        "hypervisor_range",
        ("  stays: nothing behind the table is readable: yes",),
        ("  stays: nothing behind the table is readable: FAILED, no",),
        _SLOT,
        "kvm",
        "honours_slot_256",
    ),
    Difference(
        "hypervisor_range",
        ("TEST hypervisor_range: PASS",),
        ("TEST hypervisor_range: FAIL 1",),
        _SLOT,
        "kvm",
        "honours_slot_256",
    ),
    Difference(
        "iret",
        ("flags NT, kernel: rflags=4002 mask saved=1", "flags NT, user: rflags=4002 mask saved=1"),
        ("flags NT, kernel: rflags=2 mask saved=1", "flags NT, user: rflags=2 mask saved=1"),
        _NT,
        "kvm",
        "real_selectors",
    ),
    Difference(
        "m2p_slot",
        (
            "  in use for the kernel: there",
            "  in use for both: there",
            "  in use for processes, which was the kernel's: there",
        ),
        (
            "  in use for the kernel: not there",
            "  in use for both: not there",
            "  in use for processes, which was the kernel's: not there",
        ),
        _SLOT,
        "kvm",
        "honours_slot_256",
    ),
    Difference(
        "m2p_slot",
        (
            "  pinned: there",
            "  in use for processes: not there",
            "  read by a process: #PF",
            "  in use for the kernel: there",
        ),
        (
            "  pinned: not there",
            "  in use for processes: not there",
            "  read by a process: #PF",
            "  in use for the kernel: not there",
        ),
        _SLOT,
        "kvm",
        "honours_slot_256",
    ),
    Difference(
        "m2p_slot",
        ("  another vcpu's kernel table: there",),
        ("  another vcpu's kernel table: not there",),
        _SLOT,
        "kvm",
        "honours_slot_256",
    ),
    Difference(
        "pinning",
        ("we still run; slot 256 is filled: 1",),
        ("we still run; slot 256 is filled: 0",),
        _SLOT,
        "kvm",
        "honours_slot_256",
    ),
    Difference("privileged", ("  valid=1",), ("  valid=0",), _SELECTORS, "kvm", "real_selectors"),
    Difference(
        "ring0_pages",
        ("  slot 258, kernel: of 192 places 192 reads, 192 writes and 192 calls fault",),
        ("  slot 258, kernel: of 192 places 190 reads, 191 writes and 191 calls fault",),
        _STUBS_AND_QUEUE,
        "kvm",
        "real_selectors",
    ),
    Difference(
        "ring0_pages",
        ("  slot 258, user: of 192 places 192 reads, 192 writes and 192 calls fault",),
        ("  slot 258, user: of 192 places 191 reads, 192 writes and 191 calls fault",),
        _STUBS,
        "kvm",
        "real_selectors",
    ),
    Difference(
        "ring0_pages",
        ("  of 254 jumps 254 are page faults there, 0 others fault, 0 were hypercalls, 0 were answered there",),
        ("  of 254 jumps 0 are page faults there, 252 others fault, 2 were hypercalls, 0 were answered there",),
        _STUBS_AND_QUEUE,
        "kvm",
        "real_selectors",
    ),
    Difference(
        "ring0_pages",
        (
            "  out %al, (%dx) with a prefix: #GP; rip and registers as before, memory as before",
            "  out %al, (%dx) with two: #GP; rip and registers as before, memory as before",
            "  out %al, $0x10 with two: #GP; rip and registers as before, memory as before",
        ),
        (
            "  out %al, (%dx) with a prefix: #GP; rip and registers changed, memory as before",
            "  out %al, (%dx) with two: #GP; rip and registers changed, memory as before",
            "  out %al, $0x10 with two: #GP; rip and registers changed, memory as before",
        ),
        _PORT,
        "kvm",
        "real_selectors",
    ),
    Difference(
        "ring0_pages",
        _REFUSED_INS,
        _INS_THAT_STORED,
        _PORT,
        "kvm",
        "real_selectors",
    ),
    Difference(
        "ring0_pages",
        ("  of 509 ways 508 are page faults there, 0 others fault, 1 were system calls",),
        ("  of 509 ways 0 are page faults there, 506 others fault, 3 were system calls",),
        _STUBS,
        "kvm",
        "real_selectors",
    ),
    Difference(
        "ring0_pages",
        ("  updates may be queued: no",),
        ("  updates may be queued: yes",),
        _STUBS_AND_QUEUE,
        "kvm",
        "real_selectors",
    ),
    Difference(
        "return_targets",
        ("  twin: a system call with NT: 257", "  stays: the flag is shown: yes"),
        ("  twin: a system call with NT: 257", "  stays: the flag is shown: FAILED, no"),
        _NT,
        "kvm",
        "real_selectors",
    ),
    Difference(
        "return_targets", ("TEST return_targets: PASS",), ("TEST return_targets: FAIL 1",), _NT, "kvm", "real_selectors"
    ),
    Difference(
        "selectors",
        (
            "cs=e033 ss=e02b",
            "e033: lar 1 a0fb00, lsl 1 ffffffff, verr 1, verw 0",
            "e023: lar 1 c0fb00, lsl 1 ffffffff, verr 1, verw 0",
            "e02b: lar 1 c0f300, lsl 1 ffffffff, verr 1, verw 1",
            "e030: lar 1 a0fb00, lsl 1 ffffffff, verr 1, verw 0",
        ),
        (
            "cs=33 ss=2b",
            "e033: lar 0 0, lsl 0 0, verr 0, verw 0",
            "e023: lar 0 0, lsl 0 0, verr 0, verw 0",
            "e02b: lar 0 0, lsl 0 0, verr 0, verw 0",
            "e030: lar 0 0, lsl 0 0, verr 0, verw 0",
        ),
        _SELECTORS,
        "kvm",
        "real_selectors",
    ),
    Difference(
        "selectors",
        ("  cs=e033, kernel data readable: 1",),
        ("  cs=33, kernel data readable: 1",),
        _SELECTORS,
        "kvm",
        "real_selectors",
    ),
    Difference("selectors", ("  cs=e033",), ("  cs=33",), _SELECTORS, "kvm", "real_selectors"),
    Difference(
        "selectors", ("ljmp to 1233: #GP(1230)",), ("ljmp to 1233: #UD(0)",), _FAR_JUMP, "kvm", "real_selectors"
    ),
    Difference("selectors", ("user: cs=e033 ss=e02b",), ("user: cs=33 ss=2b",), _SELECTORS, "kvm", "real_selectors"),
    Difference(
        "start",
        ("cs=e033 ss=e02b ds=0 es=0 fs=0 gs=0",),
        ("cs=33 ss=2b ds=0 es=0 fs=0 gs=0",),
        _SELECTORS,
        "kvm",
        "real_selectors",
    ),
    Difference(
        "start",
        ("machine-to-phys at ffff800000000000",),
        ("machine-to-phys at ffff808000000000",),
        _SLOT,
        "kvm",
        "honours_slot_256",
    ),
)
"""What only a KVM engine makes different, and on which hosts."""


def on_unicorn() -> tuple[Difference, ...]:
    """What differs on the Unicorn engine."""
    return tuple(difference for difference in DIFFERENCES if difference.engine in ("", "unicorn"))


def on_kvm(host: Mapping[str, object]) -> tuple[Difference, ...]:
    """What differs on the KVM engine on a host of which ``host`` says what it is like."""
    return tuple(
        difference
        for difference in (*DIFFERENCES, *ON_KVM)
        if difference.engine in ("", "kvm") and not (difference.unless and host[difference.unless])
    )


def expected(run: str, lines: list[str], differences: tuple[Difference, ...]) -> list[str]:
    """Real Xen's answers as they are known to be where these differences are.

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
