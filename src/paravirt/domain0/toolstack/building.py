"""Making a domain: its frames and first contents, its rings, its place in xenstore, its devices."""

from __future__ import annotations

import dataclasses
import os
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from paravirt.abi.grant_table import GNTTAB_RESERVED_CONSOLE, GNTTAB_RESERVED_XENSTORE, GTF_permit_access
from paravirt.domain0.builder import BuiltDomain, KernelImage, build_domain
from paravirt.domain0.devices.spec import DeviceSpec
from paravirt.domain0.domainlimits import DomainLimits
from paravirt.domain0.store.layout import announce, derived_identity
from paravirt.domain0.toolstack.domain import Domain, ShutdownReason
from paravirt.domain0.toolstack.limits import FRAMES_PER_MIB, MAXMEM_SLACK, MIB
from paravirt.errors import UserError
from paravirt.hypervisor.hypercalls.grant_frames import Entry, grants_of
from paravirt.hypervisor.hypercalls.state import MemoryRange
from paravirt.hypervisor.views import Domain as DomainView
from paravirt.hypervisor.views import MachineLock
from paravirt.hypervisor.views.pools import move_domain

if TYPE_CHECKING:
    from paravirt.domain0.toolstack.machine import Machine

E820_RAM: Final = 1
POPULATED_AT_ONCE: Final = 4096
"""Frames that a new domain is given before the rest of the machine goes on: some 300 us."""

PARTS_AT_ONCE: Final = 8
"""Parts of a domain's end, each of some 100 us, before others have the machine lock for sure."""

BREATH: Final = 0.0001
"""Seconds for which they have it."""


@dataclasses.dataclass(frozen=True)
class Wanted:
    """The domain to build: see :meth:`Machine.create`."""

    image: KernelImage
    ramdisk: bytes | None
    cmdline: str
    memory: int
    vcpus: int
    name: str | None
    paused: bool
    max_memory: int | None
    online_vcpus: int | None
    identity: uuid.UUID | None
    limits: DomainLimits
    tty: str
    keep: bool
    devices: Sequence[DeviceSpec]
    pool: int


def contents(source: str | os.PathLike[str] | bytes, what: str) -> bytes:
    """The bytes of a kernel or a ramdisk (``what``), given as such or by a path.

    Raises:
        UserError: the file cannot be read.
    """
    if isinstance(source, bytes):
        return source
    try:
        return Path(source).read_bytes()
    except OSError as error:
        raise UserError(f"The {what} {os.fspath(source)!r} cannot be read: {error.strerror}.") from error


def create_domain(machine: Machine, domid: int, wanted: Wanted) -> Domain:
    """Build a domain and, unless it is to be paused, let it run. In Domain 0's thread.

    Raises:
        UserError: the machine has not enough memory, the kernel cannot be used, or a device cannot be made.
    """
    pages = wanted.memory * FRAMES_PER_MIB
    name = wanted.name or f"domain-{domid}"
    if wanted.identity is None:
        identity = derived_identity(domid, name) if machine.deterministic else uuid.uuid4()
        wanted = dataclasses.replace(wanted, identity=identity)
    lock = machine.host.lock
    with lock:
        view = machine.host.create_domain(domid, pages, wanted.vcpus, name=name, populated=False)
    try:
        _populate(machine, view)
        with lock:
            store_port = view.alloc_unbound(0)
            console_port = view.alloc_unbound(0)
            _set_limits(view, wanted)
            move_domain(view, wanted.pool)
        built = build_domain(
            _Target(view, lock),
            wanted.image,
            wanted.ramdisk,
            wanted.cmdline,
            console_port=console_port,
            store_port=store_port,
            nr_pages=pages,
        )
        with lock:
            _seed_grants(view, built)
    except BaseException:
        take_apart(machine, view)
        raise
    domain = Domain(machine, view, name, wanted.image, wanted.memory, wanted.keep)
    machine.domains[domid] = domain
    _serve_console(domain, view, console_port)
    _announce(domain, wanted, built, console_port, store_port)
    machine.store_rings.introduce(domid, store_port)
    try:
        for device in wanted.devices:
            machine.devices.attach(domid, device)
    except BaseException:
        machine._end(domain, ShutdownReason.DESTROYED)
        raise
    if not wanted.paused:
        with machine.host.lock:
            view.unpause()
    return domain


class _Target:
    """A new domain, as the builder sees it.

    Its memory is nobody else's yet, and is written to without the machine lock: that takes its time.
    """

    def __init__(self, view: DomainView, lock: MachineLock) -> None:
        self._view = view
        self._lock = lock
        self.domid = view.domid
        self.p2m = view.p2m
        self.shared_info_mfn = view.shared_info_mfn
        self.write = view.write

    def set_hypercall_page(self, pfn: int) -> None:
        with self._lock:
            self._view.set_hypercall_page(pfn)

    def pin_l4(self, pfn: int) -> None:
        with self._lock:
            self._view.pin_l4(pfn)

    def set_context(self, *, rip: int, rsp: int, rsi: int, cr3_pfn: int) -> None:
        with self._lock:
            self._view.set_context(rip=rip, rsp=rsp, rsi=rsi, cr3_pfn=cr3_pfn)


def _populate(machine: Machine, view: DomainView) -> None:
    """Give a new domain its memory, in parts, between which others have the machine.

    Raises:
        UserError: there is not enough any more.
    """
    complete = False
    while not complete:
        with machine.host.lock:
            complete = view.populate(POPULATED_AT_ONCE)
        _let_others(machine)


def take_apart(machine: Machine, view: DomainView) -> None:
    """Take back what a domain has, in parts as well."""
    parts = 0
    gone = False
    while not gone:
        with machine.host.lock:
            gone = view.destroy_part()
        parts += 1
        if parts % PARTS_AT_ONCE == 0:
            _let_others(machine)


def _let_others(machine: Machine) -> None:
    """Leave the machine lock alone for a moment: who waits for it takes longer to wake up than we to take it again."""
    if not machine.deterministic:
        time.sleep(BREATH)


def _set_limits(view: DomainView, wanted: Wanted) -> None:
    """What libxl tells the hypervisor before it builds a domain (libxl__build_pre in tools/libs/light)."""
    size = max(wanted.max_memory or 0, wanted.memory) * MIB
    view.state.memory_map = [MemoryRange(0, size, E820_RAM)]
    if wanted.max_memory is not None:
        view.max_pages = wanted.memory * FRAMES_PER_MIB + MAXMEM_SLACK
    limits, state = wanted.limits, view.state
    if limits.max_grant_frames is not None:
        state.max_grant_frames = limits.max_grant_frames
    if limits.max_maptrack_frames is not None:
        state.maptrack.max_frames = limits.max_maptrack_frames
    if limits.max_grant_version is not None:
        state.max_grant_version = limits.max_grant_version
    if limits.max_event_channels is not None:
        view.max_ports = limits.max_event_channels + 1
    if wanted.identity is not None:
        view.state.handle = wanted.identity.bytes


def _seed_grants(view: DomainView, built: BuiltDomain) -> None:
    """Grant the two rings to Domain 0, under the references kept for them (xc_dom_gnttab_seed in tools/libs/guest)."""
    rings = (GNTTAB_RESERVED_CONSOLE, built.console_mfn), (GNTTAB_RESERVED_XENSTORE, built.store_mfn)
    for ref, mfn in rings:
        grants_of(view).write_reserved(ref, Entry(GTF_permit_access, 0, mfn))


def _serve_console(domain: Domain, view: DomainView, port: int) -> None:
    services, console = domain.machine._services, domain.console
    view.console_sink = console.emit
    notify = services.bind(domain.domid, port, console.on_event).notify
    page = domain.machine.grants.map(domain.domid, GNTTAB_RESERVED_CONSOLE)
    domain._rings.append(page)
    console.attach(page, notify)
    console.wake = lambda: services.post(console.on_event)


def _announce(domain: Domain, wanted: Wanted, built: BuiltDomain, console_port: int, store_port: int) -> None:
    """Write the domain's place in xenstore."""
    announce(
        domain.machine.store,
        domain.domid,
        domain.name,
        wanted.memory,
        wanted.vcpus,
        built.store_mfn,
        store_port,
        built.console_mfn,
        console_port,
        maximum=wanted.max_memory,
        uuid=wanted.identity,
        online=wanted.online_vcpus,
        tty=wanted.tty,
    )
