"""One machine: its memory, its CPU, its hypervisor, and Domain 0."""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from paravirt.abi.xen import DOMID_FIRST_RESERVED
from paravirt.domain0.block.kind import DiskKind
from paravirt.domain0.builder import KernelImages
from paravirt.domain0.channels.kind import ChannelKind
from paravirt.domain0.crash import crash_report
from paravirt.domain0.devices.backend import Facilities
from paravirt.domain0.devices.registry import Devices
from paravirt.domain0.devices.spec import DeviceSpec
from paravirt.domain0.domainlimits import DomainLimits
from paravirt.domain0.grants import Grants
from paravirt.domain0.iopool import IoPool
from paravirt.domain0.net.kind import VifKind
from paravirt.domain0.net.network import Network
from paravirt.domain0.net.options import NetworkOptions
from paravirt.domain0.services import Services
from paravirt.domain0.store import Store
from paravirt.domain0.store.layout import announce_host
from paravirt.domain0.store.rings import StoreRings
from paravirt.domain0.store.socket import StoreSocket
from paravirt.domain0.toolstack.autoballoon import make_room
from paravirt.domain0.toolstack.building import Wanted, contents, create_domain, take_apart
from paravirt.domain0.toolstack.cpupools import FIRST, Cpupools
from paravirt.domain0.toolstack.domain import Domain, ShutdownReason
from paravirt.domain0.toolstack.limits import FRAMES_PER_MIB, MAX_MEMORY_MIB, MAX_VCPUS, MIB
from paravirt.errors import HypervisorBug, UserError
from paravirt.hypervisor.audit import audit
from paravirt.hypervisor.audit_report import AuditReport
from paravirt.hypervisor.cpuid import POLICY
from paravirt.hypervisor.views import Host
from paravirt.hypervisor.views import scheduler as policies
from paravirt.machine.choice import DEFAULT_ENGINE, choose, default_pcpus, set_cpuid, settle
from paravirt.machine.memory import Memory

T = TypeVar("T")

# What a machine needs beside its domains' memory: machine-to-phys table, shared pages, slack.
OVERHEAD_MIB = 4
IO_THREADS = 4
CLOSING_PATIENCE = 30.0
"""Seconds that a machine that is closed waits for I/O in flight."""


class Machine:
    """One machine: memory, physical CPUs, the hypervisor, and Domain 0's services, private to this process.

    Parameters:
        memory: MiB for all domains together.
        deterministic: the same inputs give the same run, event for event; time is what the guest executes.
        pcpus: physical CPUs, each a thread with an engine of its own; by default as many as the host lets this process
            use, and 1 for a deterministic machine.
        scheduler: which policy shares the CPUs of the first pool among domains: credit, sedf, bvt or null.
        engine: "unicorn", "kvm" (guests run on the processor itself, by /dev/kvm), or "auto": the latter where it is
            usable, for a machine that is not deterministic.
        network: what its domains' interfaces are joined to; None: the defaults.
        autoballoon: where there is not enough memory for a new domain, take it from guests that are idle
            (toolstack/autoballoon.py).

    Attributes:
        engine: the CPU engine that guests run on: "unicorn" or "kvm".
        engine_notice: for "auto", a sentence that says which it is, and why not KVM; else "".
        grants: the domains' grants, as Domain 0's backends use them.
        store_rings: which domains' rings the store serves.
        devices: the domains' virtual devices; only Domain 0's thread (:meth:`call`) may touch them.
        cpupools: its pools of physical CPUs.
        network: the virtual firewall-router; only Domain 0's thread may touch it.
        on_shutdown: called in Domain 0's thread with a domain that has just shut down, or has been destroyed.

    Raises:
        UserError: no CPU engine is usable here, it cannot have so many physical CPUs, or the host has not that much
            memory.
    """

    def __init__(
        self,
        memory: int = 1024,
        *,
        pcpus: int | None = None,
        deterministic: bool = False,
        scheduler: str = "credit",
        engine: str = DEFAULT_ENGINE,
        network: NetworkOptions | None = None,
        autoballoon: bool = False,
    ) -> None:
        _require_possible(memory, scheduler)
        if autoballoon and deterministic:
            raise UserError("A deterministic machine takes no memory from guests: it has no time to wait for it.")
        wanted_network = (network or NetworkOptions()).checked(deterministic)
        self.started_ns = time.monotonic_ns()
        if pcpus is None:
            pcpus = default_pcpus(deterministic=deterministic)
        self.engine, self.engine_notice = settle(engine, deterministic=deterministic)
        open_engines = choose(self.engine, pcpus, deterministic=deterministic)
        total = memory + OVERHEAD_MIB + memory // 256
        self.memory = Memory(total * FRAMES_PER_MIB)
        self.deterministic = deterministic
        self.engines = open_engines(self.memory)
        self._services = Services(threaded=not deterministic)
        wall = 1_000_000_000 * 1_000_000_000 if deterministic else time.time_ns()
        self.host = Host(
            self.memory,
            self.engines,
            virtual_clock=deterministic,
            wall_ns=wall,
            service_fd=self._services.event_fd,
        )
        policies.choose_scheduler(self.host, scheduler)
        set_cpuid(self.engines, POLICY, self.host.time_scale)
        self.host.offer_native_state(self.engines[0].native_leaves)
        self.memory.on_write(self.host.invalidate_ranges)
        self.store = Store()
        self.grants = Grants(self.host)
        self.store_rings = StoreRings(self.store, self._services, self.grants)
        self._io = IoPool(self._services, 0 if deterministic else IO_THREADS)
        self.network = Network(self._services, wanted_network, deterministic)
        facilities = Facilities(
            self.store, self._services, self.grants, self._io, deterministic, has_barriers=self.parallel_vcpus
        )
        self.devices = Devices(facilities, (DiskKind(), VifKind(self.network), ChannelKind()))
        self.domains: dict[int, Domain] = {}
        self.cpupools = Cpupools(self)
        self._kernels = KernelImages()
        self.on_shutdown: Callable[[Domain], None] | None = None
        self._store_socket: StoreSocket | None = None
        self._autoballoon = autoballoon
        self._making = threading.Lock()  # room that was made for one domain is not for another
        self._last_domid = 0
        self._closed = False
        self._services.start(self.host, self._look_for_ended)
        self._pcpus = [
            threading.Thread(target=self.host.run, args=(i,), name=f"pcpu-{i}", daemon=True)
            for i in range(self.host.nr_pcpus)
        ]
        for thread in self._pcpus:
            thread.start()
        try:
            self.call(self.network.start)
        except UserError:
            self.close()
            raise

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
        limits: DomainLimits | None = None,
        tty: str = "",
        keep: bool = False,
        devices: Sequence[DeviceSpec] = (),
        pool: str | int = FIRST,
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
            limits: of the hypervisor's tables, where they are not to be the default.
            tty: the file name of the terminal that its console is found at, for xenstore.
            keep: see :class:`Domain`.
            devices: virtual devices that it has from the start.
            pool: the number or name of the pool of physical CPUs that it is in.

        Raises:
            UserError: a file cannot be read or used, a device cannot be made, the machine has not enough memory, or no
                such pool, or that has no physical CPUs.
        """
        if not 1 <= vcpus <= MAX_VCPUS:
            raise UserError(f"A domain has 1 to {MAX_VCPUS} virtual CPUs, not {vcpus}.")
        if not 1 <= memory <= MAX_MEMORY_MIB:
            raise UserError(f"A domain has 1 to {MAX_MEMORY_MIB} MiB of memory, not {memory}.")
        image = self._kernels.parse(contents(kernel, "kernel"))
        disk = None if ramdisk is None else contents(ramdisk, "ramdisk")
        wanted = Wanted(
            image, disk, cmdline, memory, vcpus, name, paused, max_memory, online_vcpus, identity,
            limits or DomainLimits(), tty, keep, devices, self.cpupools.find(pool).id,
        )  # fmt: skip
        if not self._autoballoon:
            return self.call(lambda: self._create(wanted))
        with self._making:
            make_room(self, memory, vcpus)
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

    @property
    def parallel_vcpus(self) -> bool:
        """Whether virtual CPUs of one domain run at the same time, where there are physical ones for them."""
        parallel: bool = self.engines[0].capabilities.parallel_vcpus
        return parallel

    def stats(self) -> dict[str, Any]:
        """Counts and times (ns) of hypercalls, traps and the engine since the machine's start.

        ``inside_ns`` is what the host's KVM had of the engine's time: 0 on Unicorn, which is part of this process.
        """
        with self.host.lock:
            return dict(self.host.stats())

    def sched_info(self, pool: int = FIRST) -> dict[str, Any]:
        """The scheduler ("name") of a pool and its own parameters: credit's ``tslice_ms`` and ``ratelimit_us``, BVT's
        ``ctx_allow`` (ns).

        Raises:
            UserError: there is no pool of that number.
        """
        with self.host.lock:
            return policies.sched_info(self.host, pool)

    def set_sched_info(self, pool: int = FIRST, /, **parameters: int) -> None:
        """Change some of a pool's scheduler's own parameters.

        Raises:
            UserError: there is no pool of that number, or its scheduler has no such parameter, or not with that value.
        """
        with self.host.lock:
            policies.set_sched_info(self.host, parameters, pool)

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
        if not self.devices.wait_until_gone(CLOSING_PATIENCE):
            raise HypervisorBug("a device's I/O does not end")
        self.call(self.network.close)
        if self._store_socket is not None:
            self.call(self._store_socket.close)
        self.host.stop()
        for thread in self._pcpus:
            thread.join()
        self._io.stop()
        self._services.stop()
        with self.host.lock:
            for view in list(self.host.domains.values()):
                view.destroy()
        for cpu in self.engines:
            cpu.close()
        self.memory.close()

    def __enter__(self) -> Machine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _create(self, wanted: Wanted) -> Domain:
        domid = self.next_domid()
        domain = create_domain(self, domid, wanted)
        self._last_domid = domid
        return domain

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
            view.pause_internally()
        self._quiesce()
        domain.console.on_event()
        domain.console.close()
        self.devices.domain_ended(domain.domid)
        self.store_rings.close(domain.domid)
        self.store.release(domain.domid)
        self._services.forget(domain.domid)
        self.grants.unmap_all(domain._rings)
        with self.host.lock:
            domain._view = None
        take_apart(self, view)
        self.domains.pop(domain.domid, None)
        self._ended(domain, reason)

    def _quiesce(self) -> None:
        """Wait until no vcpu of a paused domain is in guest code."""
        while threading.current_thread() not in self._pcpus:  # a physical CPU's own thread is here, not there
            with self.host.lock:
                if not self.host.any_paused_vcpu_on_cpu():
                    return
            time.sleep(0.0002)


def _require_possible(memory: int, scheduler: str) -> None:
    """Refuse a machine that cannot be made here."""
    if scheduler not in policies.POLICIES:
        raise UserError(f"There is no scheduler {scheduler!r}: {', '.join(policies.POLICIES)} are.")
    if not 1 <= memory <= MAX_MEMORY_MIB:
        raise UserError(f"A machine of {memory} MiB cannot be made: 1 to {MAX_MEMORY_MIB} MiB are possible.")
    available = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // MIB
    if memory > available:
        raise UserError(f"A machine of {memory} MiB cannot be made: the host itself has {available} MiB.")
