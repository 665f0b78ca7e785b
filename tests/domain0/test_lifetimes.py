"""Domains come and go, and leave nothing behind in the machine that they were in."""

from __future__ import annotations

import ctypes
import gc
from collections import Counter
from pathlib import Path

import pytest

import paravirt
from paravirt import Machine, ShutdownReason
from paravirt.abi.xen import DOMID_FIRST_RESERVED
from paravirt.hypervisor.hypercalls.registry import HypercallError

from ..hypervisor.audited import check
from ..leftovers import Leftovers
from ..patience import PATIENCE, settled

HELLO = Path(paravirt.__file__).parent / "data" / "hello"
DOMAINS = 200
VCPUS = 4
HELLO_CODE = 0xFFFFFFFF80000000


class _MallocInfo(ctypes.Structure):
    """struct mallinfo2 of the C library."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
        )
    ]  # fmt: skip


def allocated() -> int:
    """Bytes that the C library has given out, however they were asked for."""
    mallinfo2 = ctypes.CDLL(None).mallinfo2
    mallinfo2.restype = _MallocInfo
    info = mallinfo2()
    return int(info.uordblks + info.hblkhd)


def holdings(machine: Machine) -> dict[str, object]:
    """What a machine has in use, as far as it can be counted exactly."""
    gc.collect()

    def nodes(path: str) -> int:
        base = "" if path == "/" else path
        return 1 + sum(nodes(f"{base}/{child}") for child in machine.store.directory(path))

    with machine.host.lock:
        free_frames = machine.host.free_frames
    return {
        "free frames": free_frames,
        "domains": sorted(machine.host.domains),
        "store nodes": machine.call(lambda: nodes("/")),
    }


def objects() -> Counter[str]:
    """Objects of ours, by their types; also those that earlier tests have left."""
    gc.collect()
    return Counter(
        f"{type(thing).__module__}.{type(thing).__qualname__}"
        for thing in gc.get_objects()
        if str(type(thing).__module__).startswith("paravirt.")
    )


def come_and_go(machine: Machine, number: int) -> None:
    """One domain that is destroyed before it runs, one while it may be running, one that ends by itself, in turn."""
    domain = machine.create(kernel=HELLO, memory=4, vcpus=1 + number % 2, paused=number % 3 == 0)
    if number % 3 == 2:
        assert domain.wait(PATIENCE) is ShutdownReason.POWEROFF
        assert b"Goodbye." in domain.console.output
        return
    domain.destroy()
    assert domain.ended


def test_hundreds_of_domains_leave_nothing() -> None:
    with Machine(memory=16) as machine:
        for number in range(30):
            come_and_go(machine, number)
        before, things, process = holdings(machine), objects(), Leftovers()
        for number in range(DOMAINS):
            come_and_go(machine, number)
        assert settled(lambda: holdings(machine), before) == before
        assert settled(lambda: objects() - things, Counter[str]()) == {}
        assert process.stay() == []
        check(machine, "after all")


def test_records_are_freed() -> None:
    """Of domains that never ran: what the engine keeps of code that it once translated is a cache's matter."""
    with Machine(memory=16) as machine:

        def create_and_destroy(domains: int) -> int:
            for _ in range(domains):
                machine.create(kernel=HELLO, memory=4, vcpus=VCPUS, paused=True).destroy()
            gc.collect()
            return allocated()

        before = create_and_destroy(50)
        # A vcpu's record has its trap table, of 4096 bytes, in it.
        assert create_and_destroy(DOMAINS) - before < DOMAINS * VCPUS * 4096 // 8


def test_numbers_begin_anew_after_the_last() -> None:
    with Machine(memory=16) as machine:
        first = machine.create(kernel=HELLO, memory=4, paused=True)
        machine._last_domid = DOMID_FIRST_RESERVED - 2
        last = machine.create(kernel=HELLO, memory=4, paused=True)
        again = machine.create(kernel=HELLO, memory=4, paused=True)
        assert (first.domid, last.domid, again.domid) == (1, DOMID_FIRST_RESERVED - 1, 2)


def test_a_view_of_a_domain_that_is_gone() -> None:
    """Whoever still has a domain's or a vcpu's object finds no memory of others behind it."""
    with Machine(memory=16) as machine:
        domain = machine.create(kernel=HELLO, memory=4, vcpus=2, paused=True)
        view = machine.host.domains[domain.domid]
        vcpu = view.vcpus[0]
        domain.destroy()
        machine.create(kernel=HELLO, memory=4, vcpus=2)
        with machine.host.lock:
            assert (view.domid, view.is_dying, view.vcpus) == (domain.domid, True, [])
            assert (vcpu.id, vcpu.domain, vcpu.cr2) == (0, view, 0)
            with pytest.raises(HypercallError):
                vcpu.copy_from_guest(HELLO_CODE, 8)
