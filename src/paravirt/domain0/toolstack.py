"""The toolstack: a machine and its domains, for programs and commands alike.

from paravirt import Machine

with Machine(memory=512) as machine:
    domain = machine.create(kernel="vmlinuz", ramdisk="initrd.img", cmdline="console=hvc0", memory=256)
    domain.console.expect("login:", timeout=60)
    domain.console.send("root\\n")
    domain.wait()
"""

from __future__ import annotations

import dataclasses
import enum
import os
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from paravirt.abi.grant_table import GNTTAB_RESERVED_CONSOLE, GNTTAB_RESERVED_XENSTORE, GTF_permit_access
from paravirt.abi.xen import DOMID_FIRST_RESERVED
from paravirt.domain0.builder import BuiltDomain, KernelImage, build_domain, parse_kernel
from paravirt.domain0.console import Console
from paravirt.domain0.crash import crash_report
from paravirt.domain0.grants import Grants
from paravirt.domain0.services import Services
from paravirt.domain0.store import Store, StoreService
from paravirt.domain0.store.layout import announce, announce_host, derived_identity
from paravirt.domain0.store.socket import StoreSocket
from paravirt.errors import HypervisorBug, UserError
from paravirt.hypervisor.audit import audit
from paravirt.hypervisor.audit_report import AuditReport
from paravirt.hypervisor.cpuid import POLICY
from paravirt.hypervisor.hypercalls.grant_frames import Entry, grants_of
from paravirt.hypervisor.hypercalls.state import MemoryRange
from paravirt.hypervisor.views import Domain as DomainView
from paravirt.hypervisor.views import Host
from paravirt.hypervisor.views import scheduler as policies
from paravirt.machine.choice import choose, set_cpuid
from paravirt.machine.memory import FRAME_SIZE, Memory

T = TypeVar("T")
MIB = 1 << 20
FRAMES_PER_MIB = MIB // FRAME_SIZE
MAX_MEMORY_MIB = 1 << 20
MAX_VCPUS = 32
"""vcpu_info fits in shared_info for this many; a guest may register it elsewhere, but builds with these."""

MAXMEM_SLACK = 256
KIB_PER_MIB = 1024
"""Frames that a domain may have beyond its target (LIBXL_MAXMEM_CONSTANT, 1 MiB)."""
E820_RAM = 1

# What a machine needs beside its domains' memory: machine-to-phys table, shared pages, slack.
OVERHEAD_MIB = 4
FRAME_WRITABLE = 7  # records.pxd: the type of a frame that is written to


class ShutdownReason(enum.Enum):
    """Why a domain ended (SHUTDOWN_* of public/sched.h)."""

    POWEROFF = 0
    REBOOT = 1
    SUSPEND = 2
    CRASH = 3
    WATCHDOG = 4
    SOFT_RESET = 5
    DESTROYED = -1


class GuestPage:
    """One frame of a guest, mapped by Domain 0: a service's door to a shared ring (see ``domain0.ring``).

    The mapping holds a reference and a use as writable, so that a guest that gives the frame back, or makes a page
    table of it, does not have Domain 0 write into somebody else's memory.

    Raises:
        HypervisorBug: the frame is not the domain's, or in use as something else; and when it is used after
            :meth:`release`.
    """

    def __init__(self, domain: DomainView, mfn: int) -> None:
        self._domain = domain
        self._memory = domain.host.memory
        self._mfn: int | None = mfn
        with domain.host.lock:
            if domain.host.get_page_and_type(mfn, domain.domid, FRAME_WRITABLE) != 0:
                raise HypervisorBug(f"Domain 0 cannot map frame {mfn:#x} of domain {domain.domid}")
            domain.state.service_pages.append(mfn)

    def release(self) -> None:
        """Unmap the frame; the caller holds the machine lock."""
        if self._mfn is not None:
            self._domain.state.service_pages.remove(self._mfn)
            self._domain.host.put_page_and_type(self._mfn)
            self._mfn = None

    def read(self, offset: int, length: int) -> bytes:
        """A copy of untrusted bytes."""
        return self._memory.read(self._address(offset), length)

    def write(self, offset: int, data: bytes) -> None:
        """Store bytes for the guest to see."""
        self._memory.write(self._address(offset), data)

    def _address(self, offset: int) -> int:
        if self._mfn is None:
            raise HypervisorBug("a page of a domain that has ended is used")
        return self._mfn * FRAME_SIZE + offset


class Domain:
    """A running domain.  Made by :meth:`Machine.create`.

    Attributes:
        domid: its number.
        name: its name.
        console: everything it says, from the first byte on, also after it has ended.
        crash_report: registers, stack and the console's tail if it crashed, else None.
        keep: when it shuts down, it stays as it is, with its memory, until it is destroyed.
    """

    def __init__(
        self, machine: Machine, view: DomainView, name: str, image: KernelImage, keep: bool = False
    ) -> None:
        self.machine = machine
        self.domid = int(view.domid)
        self.name = name
        self.image = image
        self.keep = keep
        self.console = Console()
        self.crash_report: str | None = None
        self._view: DomainView | None = view
        self._ended = threading.Event()
        self._reason: ShutdownReason | None = None
        self._on_end: list[Callable[[], None]] = []
        self._pages: list[GuestPage] = []

    def wait(self, timeout: float | None = None) -> ShutdownReason:
        """Wait for the domain's end and say why it ended.

        Raises:
            TimeoutError: it is still running after ``timeout`` seconds.
        """
        if not self._ended.wait(timeout):
            raise TimeoutError(f"domain {self.name} is still running after {timeout} s")
        assert self._reason is not None
        return self._reason

    @property
    def ended(self) -> bool:
        """Whether it has shut down, crashed or been destroyed."""
        return self._ended.is_set()

    def pause(self) -> None:
        """Stop it for the time being."""
        self.control(lambda view: view.pause())

    def unpause(self) -> None:
        """Let it go on."""
        self.control(lambda view: view.unpause())

    def destroy(self) -> None:
        """End it at once and give its memory back."""
        self.machine._services.call(lambda: self.machine._end(self, ShutdownReason.DESTROYED))

    def set_memory_target(self, memory: int) -> None:
        """Ask the guest to use ``memory`` MiB, and let it have no more: its balloon driver gives back, or takes, the
        difference in its own time.

        Raises:
            UserError: that is nothing, or more than the maximum that the domain was made with; or it is gone.
        """
        self.machine.call(lambda: self.machine._set_memory_target(self, memory))

    def sched_get(self) -> dict[str, int]:
        """Its parameters under the machine's scheduler, by their names in XEN_DOMCTL_scheduler_op; times in ns."""
        return self.control(policies.sched_get)

    def sched_set(self, **parameters: int) -> None:
        """Change some of them; they act at once.

        Raises:
            UserError: the scheduler has no such parameter, or not with that value; or the domain is gone.
        """
        self.control(lambda view: policies.sched_set(view, parameters))

    @property
    def reason(self) -> ShutdownReason | None:
        """Why it ended; None as long as it has not."""
        return self._reason

    def control(self, action: Callable[[DomainView], T]) -> T:
        """Do something with the hypervisor's domain, under the machine lock, and return what comes of it.

        Raises:
            UserError: the domain is gone.
        """
        with self.machine.host.lock:
            if self._view is None:
                raise UserError(f"The domain {self.name} has ended.")
            return action(self._view)


class Machine:
    """One machine: memory, a physical CPU, the hypervisor, and Domain 0's services, private to this process.

    Parameters:
        memory: MiB for all domains together.
        deterministic: the same inputs give the same run, event for event; time is what the guest executes.
        scheduler: which policy shares the CPU among domains: credit, sedf, bvt or null.
        engine: "unicorn", "kvm" (experimental: guests run on the processor itself, by /dev/kvm), or "auto", which is
            the former.

    Attributes:
        grants: the domains' grants, as Domain 0's backends use them.
        on_shutdown: called in Domain 0's thread with a domain that has just shut down, or has been destroyed.

    Raises:
        UserError: no CPU engine is usable here, or the host has not that much memory.
    """

    def __init__(
        self,
        memory: int = 1024,
        *,
        deterministic: bool = False,
        scheduler: str = "credit",
        engine: str = "auto",
    ) -> None:
        if scheduler not in policies.POLICIES:
            raise UserError(f"There is no scheduler {scheduler!r}: {', '.join(policies.POLICIES)} are.")
        if not 1 <= memory <= MAX_MEMORY_MIB:
            raise UserError(
                f"A machine of {memory} MiB cannot be made: 1 to {MAX_MEMORY_MIB} MiB are possible."
            )
        available = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // MIB
        if memory > available:
            raise UserError(f"A machine of {memory} MiB cannot be made: the host itself has {available} MiB.")
        self.started_ns = time.monotonic_ns()
        open_engine = choose(engine, deterministic=deterministic)
        total = memory + OVERHEAD_MIB + memory // 256
        self.memory = Memory(total * FRAMES_PER_MIB)
        self.deterministic = deterministic
        self.engine = open_engine(self.memory)
        self._services = Services(threaded=not deterministic)
        wall = 1_000_000_000 * 1_000_000_000 if deterministic else time.time_ns()
        self.host = Host(
            self.memory,
            [self.engine],
            virtual_clock=deterministic,
            wall_ns=wall,
            service_fd=self._services.event_fd,
        )
        policies.choose_scheduler(self.host, scheduler)
        set_cpuid(self.engine, POLICY, self.host.time_scale)
        self.memory.on_write(self.host.invalidate_code)
        self.store = Store()
        self.grants = Grants(self.host)
        self.domains: dict[int, Domain] = {}
        self.on_shutdown: Callable[[Domain], None] | None = None
        self._store_socket: StoreSocket | None = None
        self._last_domid = 0
        self._closed = False
        self._services.start(self.host, self._look_for_ended)
        self._pcpus = [
            threading.Thread(target=self.host.run, args=(i,), name=f"pcpu-{i}", daemon=True)
            for i in range(self.host.nr_pcpus)
        ]
        for thread in self._pcpus:
            thread.start()

    def create(
        self,
        kernel: str | os.PathLike[str] | bytes,
        ramdisk: str | os.PathLike[str] | bytes | None = None,
        cmdline: str = "",
        memory: int = 256,
        vcpus: int = 1,
        name: str | None = None,
        paused: bool = False,
        *,
        max_memory: int | None = None,
        online_vcpus: int | None = None,
        identity: uuid.UUID | None = None,
        max_grant_frames: int | None = None,
        tty: str = "",
        keep: bool = False,
    ) -> Domain:
        """Build a domain from a kernel and start it.

        Parameters:
            kernel, ramdisk: a path, or the bytes themselves.
            memory: MiB.
            vcpus: 1 to 32; all are the guest's to bring up.
            paused: leave it to :meth:`Domain.unpause` to start it.
            max_memory: MiB that it may be given later; its memory map has room for them, as that of a domain
                which xl makes. Without it there is no map, and ``memory`` is the limit.
            online_vcpus: how many virtual CPUs it is to use at first; all, by default.
            identity: its unique identifier; by default a random one, or one made from its name and number where
                runs are to be the same.
            max_grant_frames: frames that its grant table may have.
            tty: the file name of the terminal that its console is found at, for xenstore.
            keep: see :class:`Domain`.

        Raises:
            UserError: a file cannot be read or used, or the machine has not enough memory.
        """
        if not 1 <= vcpus <= MAX_VCPUS:
            raise UserError(f"A domain has 1 to {MAX_VCPUS} virtual CPUs, not {vcpus}.")
        if not 1 <= memory <= MAX_MEMORY_MIB:
            raise UserError(f"A domain has 1 to {MAX_MEMORY_MIB} MiB of memory, not {memory}.")
        image = parse_kernel(_contents(kernel, "kernel"))
        disk = None if ramdisk is None else _contents(ramdisk, "ramdisk")
        wanted = _Wanted(
            image, disk, cmdline, memory, vcpus, name, paused, max_memory, online_vcpus, identity, max_grant_frames,
            tty, keep,
        )  # fmt: skip
        return self.call(lambda: self._create(wanted))

    def next_domid(self) -> int:
        """The number that the next domain gets: after the last one possible they begin anew, as Xen's domctl does."""
        for step in range(1, DOMID_FIRST_RESERVED):
            domid = (self._last_domid + step - 1) % (DOMID_FIRST_RESERVED - 1) + 1
            if self.host.find(domid) is None:
                return domid
        raise UserError(f"The machine has {DOMID_FIRST_RESERVED - 1} domains, as many as are possible.")

    def call(self, function: Callable[[], T]) -> T:
        """Run ``function`` in Domain 0's thread, which alone may touch :attr:`store`, and return its result."""
        return self._services.call(function)

    def stats(self) -> dict[str, Any]:
        """Counts and times (ns) of hypercalls, traps and the engine since the machine's start."""
        with self.host.lock:
            return dict(self.host.stats())

    def sched_info(self) -> dict[str, Any]:
        """The scheduler ("name") and its own parameters: credit's ``tslice_ms`` and ``ratelimit_us``, BVT's
        ``ctx_allow`` (ns)."""
        with self.host.lock:
            return policies.sched_info(self.host)

    def set_sched_info(self, **parameters: int) -> None:
        """Change some of the scheduler's own parameters.

        Raises:
            UserError: it has no such parameter, or not with that value.
        """
        with self.host.lock:
            policies.set_sched_info(self.host, parameters)

    def serve_store(self, path: Path) -> None:
        """Let programs talk to the store over a unix socket, as Domain 0; the socket goes with the machine.

        Raises:
            UserError: in deterministic mode, or the socket cannot be made.
        """
        if self.deterministic:
            raise UserError("A deterministic machine's store has no socket: programs have their own time.")

        def serve() -> StoreSocket:
            announce_host(self.store)
            return StoreSocket(self.store, self._services, path)

        try:
            self._store_socket = self.call(serve)
        except OSError as error:
            raise UserError(f"The store's socket {path} cannot be made: {error.strerror}.") from error

    def service_time_ns(self) -> int:
        """How long Domain 0 has run."""
        return self._services.cpu_time_ns()

    def audit(self) -> AuditReport:
        """Recount every reference of every frame from the page tables and all other roots (hypervisor/audit.py)."""
        with self.host.lock:
            return audit(self.host)

    def close(self) -> None:
        """Destroy the domains and give everything back to the host."""
        if self._closed:
            return
        self._closed = True
        for domain in list(self.domains.values()):
            self._services.call(lambda domain=domain: self._end(domain, ShutdownReason.DESTROYED))  # type: ignore[misc]
        if self._store_socket is not None:
            self.call(self._store_socket.close)
        self.host.stop()
        for thread in self._pcpus:
            thread.join()
        self._services.stop()
        with self.host.lock:
            for view in list(self.host.domains.values()):
                view.destroy()
        self.engine.close()
        self.memory.close()

    def __enter__(self) -> Machine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _create(self, wanted: _Wanted) -> Domain:
        domid = self.next_domid()
        pages = wanted.memory * FRAMES_PER_MIB
        name = wanted.name or f"domain-{domid}"
        if wanted.identity is None:
            identity = derived_identity(domid, name) if self.deterministic else uuid.uuid4()
            wanted = dataclasses.replace(wanted, identity=identity)
        with self.host.lock:
            view = self.host.create_domain(domid, pages, wanted.vcpus, name=name)
            console_port = view.alloc_unbound(0)
            store_port = view.alloc_unbound(0)
            _set_limits(view, wanted)
            try:
                built = build_domain(
                    view,
                    wanted.image,
                    wanted.ramdisk,
                    wanted.cmdline,
                    console_port=console_port,
                    store_port=store_port,
                    nr_pages=pages,
                )
                _seed_grants(view, built)
            except BaseException:
                view.destroy()
                raise
        self._last_domid = domid
        domain = Domain(self, view, name, wanted.image, wanted.keep)
        self.domains[domid] = domain
        view.console_sink = domain.console.emit
        notify = self._services.bind(domid, console_port, domain.console.on_event).notify
        domain._pages.append(GuestPage(view, built.console_mfn))
        domain.console.attach(domain._pages[-1], notify)
        domain.console.wake = lambda: self._services.post(domain.console.on_event)
        self._introduce(domain, wanted, built.store_mfn, store_port, built.console_mfn, console_port)
        if not wanted.paused:
            with self.host.lock:
                view.unpause()
        return domain

    def _introduce(
        self, domain: Domain, wanted: _Wanted, store_mfn: int, store_port: int, console_mfn: int, console_port: int
    ) -> None:
        """Announce the domain in xenstore and serve its ring."""
        announce(
            self.store,
            domain.domid,
            domain.name,
            wanted.memory,
            wanted.vcpus,
            store_mfn,
            store_port,
            console_mfn,
            console_port,
            maximum=wanted.max_memory,
            uuid=wanted.identity,
            online=wanted.online_vcpus,
            tty=wanted.tty,
        )
        connection = self.store.connect(domain.domid)
        # The service exists before its notifier does: bind late.
        service: list[StoreService] = []
        notify = self._services.bind(domain.domid, store_port, lambda: service[0].on_event()).notify
        assert domain._view is not None
        domain._pages.append(GuestPage(domain._view, store_mfn))
        service.append(StoreService(domain._pages[-1], connection, notify, self._services.post))
        domain._on_end.append(service[0].close)
        connection.on_output = lambda: self._services.post(service[0].on_event)
        self.store.introduce(domain.domid)

    def _set_memory_target(self, domain: Domain, memory: int) -> None:
        """As libxl_set_memory_target: the hypervisor's limit, and the target in xenstore."""
        home = f"/local/domain/{domain.domid}/memory"
        most = int(self.store.get(f"{home}/static-max") or 0) // KIB_PER_MIB
        if not 1 <= memory <= most:
            raise UserError(f"The domain {domain.name} can have 1 to {most} MiB of memory, not {memory}.")

        def limit(view: DomainView) -> None:
            view.max_pages = memory * FRAMES_PER_MIB + MAXMEM_SLACK

        domain.control(limit)
        self.store.set(f"{home}/target", str(memory * KIB_PER_MIB))

    def _look_for_ended(self) -> None:
        for domain in list(self.domains.values()):
            with self.host.lock:
                view = domain._view
                ended = view is not None and view.is_shut_down and not domain.ended
                code = int(view.shutdown_code) if view is not None else 0
            if ended:
                try:
                    reason = ShutdownReason(code)
                except ValueError:
                    reason = ShutdownReason.CRASH
                self._shut_down(domain, reason)
                if not domain.keep:
                    self._end(domain, reason)

    def _shut_down(self, domain: Domain, reason: ShutdownReason) -> None:
        """A domain runs no more: take what is left in its console, and write the report of a crash."""
        view = domain._view
        assert view is not None
        self._quiesce()
        domain.console.on_event()
        # A domain that announced another code before (SCHEDOP_shutdown_code) ends under that one.
        if reason is ShutdownReason.CRASH or view.crash_reason is not None:
            with self.host.lock:
                domain.crash_report = crash_report(view, domain.image, domain.console.tail(2000))
        domain.console.close()
        self.store.shut_down(domain.domid)
        if domain.keep:
            self._ended(domain, reason)

    def _ended(self, domain: Domain, reason: ShutdownReason) -> None:
        if domain._reason is None:
            domain._reason = reason
            domain._ended.set()
            if self.on_shutdown is not None:
                self.on_shutdown(domain)

    def _end(self, domain: Domain, reason: ShutdownReason) -> None:
        """Give everything back that a domain had."""
        with self.host.lock:
            view = domain._view
            if view is None:
                return
            view.pause()
        self._quiesce()
        domain.console.on_event()
        domain.console.close()
        for action in domain._on_end:
            action()
        self.store.release(domain.domid)
        self._services.forget(domain.domid)
        with self.host.lock:
            domain._view = None
            for page in domain._pages:
                page.release()
            gone = view.destroy_part()
        while not gone:
            with self.host.lock:
                gone = view.destroy_part()
        self.domains.pop(domain.domid, None)
        self._ended(domain, reason)

    def _quiesce(self) -> None:
        """Wait until no vcpu of a paused domain is in guest code."""
        while threading.current_thread() not in self._pcpus:  # a physical CPU's own thread is here, not there
            with self.host.lock:
                if not self.host.any_paused_vcpu_on_cpu():
                    return
            time.sleep(0.0002)


@dataclasses.dataclass(frozen=True)
class _Wanted:
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
    max_grant_frames: int | None
    tty: str
    keep: bool


def _set_limits(view: DomainView, wanted: _Wanted) -> None:
    """What libxl tells the hypervisor before it builds a domain (libxl__build_pre in tools/libs/light)."""
    if wanted.max_memory is not None:
        size = max(wanted.max_memory, wanted.memory) * MIB
        view.state.memory_map = [MemoryRange(0, size, E820_RAM)]
        view.max_pages = wanted.memory * FRAMES_PER_MIB + MAXMEM_SLACK
    if wanted.max_grant_frames:
        view.state.max_grant_frames = wanted.max_grant_frames
    if wanted.identity is not None:
        view.state.handle = wanted.identity.bytes


def _seed_grants(view: DomainView, built: BuiltDomain) -> None:
    """Grant the two rings to Domain 0, under the references kept for them (xc_dom_gnttab_seed in tools/libs/guest)."""
    rings = (GNTTAB_RESERVED_CONSOLE, built.console_mfn), (GNTTAB_RESERVED_XENSTORE, built.store_mfn)
    for ref, mfn in rings:
        grants_of(view).write_reserved(ref, Entry(GTF_permit_access, 0, mfn))


def _contents(source: str | os.PathLike[str] | bytes, what: str) -> bytes:
    if isinstance(source, bytes):
        return source
    try:
        return Path(source).read_bytes()
    except OSError as error:
        raise UserError(f"The {what} {os.fspath(source)!r} cannot be read: {error.strerror}.") from error
