"""The domains that ``xl`` sees: those of one machine, with their names, their configurations, and their ends.

What is done at a domain's end (``on_crash`` and the like) follows xl's own monitor process, which this takes the place
of (handle_domain_death in tools/xl/xl_vmcontrol.c).

Threads: requests come in one thread each; ends are handled in a thread of their own, since a restart takes time. One
lock guards the tables, and nothing that waits is done under it.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
import uuid as uuids
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, Final

from paravirt.domain0.console import Console
from paravirt.domain0.daemon.affinity import Affinity
from paravirt.domain0.daemon.paths import Places
from paravirt.domain0.daemon.protocol import EXISTS, INVALID, NOT_FOUND, Refusal
from paravirt.domain0.daemon.ptys import Pty, Ptys
from paravirt.domain0.daemon.records import ConsoleLog, Journal, Log, Messages
from paravirt.domain0.toolstack import Domain, Machine, ShutdownReason
from paravirt.domain0.toolstack.cpupools import FIRST, Cpupool
from paravirt.domain0.xlcfg.config import DomainConfig, check_name
from paravirt.errors import ParavirtError, UserError

DOMAIN_0: Final = "Domain-0"
PAST: Final = 32
"""Consoles that are kept of domains which are gone."""

LEAVING: Final = 10.0
"""Seconds that a new domain waits for its name, if one that has just ended still has it."""

RESTART_INTERVAL: Final = 2.0
"""Seconds between a domain's start and its restart, at least: one that fails at once must not fill the host."""

_EVENTS: Final = {
    ShutdownReason.POWEROFF: "on_poweroff",
    ShutdownReason.REBOOT: "on_reboot",
    ShutdownReason.CRASH: "on_crash",
    ShutdownReason.WATCHDOG: "on_watchdog",
    ShutdownReason.SOFT_RESET: "on_soft_reset",
}

Event = dict[str, Any]


class ManagedDomain:
    """A domain with what the daemon knows of it.

    Attributes:
        started: when, in seconds since 1970.
        may_restart_at: when, by the clock that nobody sets.
        monitored: whether something is done at its end.
        update: the configuration that its next restart uses.
        affinity: where its vcpus may run, and would rather; changed by the methods here only, which tell the domain.
    """

    def __init__(self, domain: Domain, config: DomainConfig, pty: Pty, monitored: bool, affinity: Affinity) -> None:
        self.domain = domain
        self.config = config
        self.name = config.name
        self.uuid = config.uuid
        self.pty = pty
        self.monitored = monitored
        self.started = time.time()
        self.may_restart_at = time.monotonic() + RESTART_INTERVAL
        self.update: DomainConfig | None = None
        self.affinity = affinity
        self._pinning = threading.Lock()  # requests come in several threads, and a change is told as a whole

    @property
    def domid(self) -> int:
        return self.domain.domid

    def pin(self, vcpus: Iterable[int], hard: str, soft: str) -> None:
        """Say where some vcpus may run, and would rather; an empty text changes nothing.

        Raises:
            UserError: its pool has none of these physical CPUs, or none is where all vcpus may run; or it is gone.
        """
        with self._pinning:
            self.affinity.change(vcpus, hard, soft)
            self.affinity.pin(self.domain)

    def follow_pool(self, cpus: frozenset[int]) -> None:
        """Its pool has these physical CPUs now.

        Raises:
            UserError: the domain is gone.
        """
        with self._pinning:
            self.affinity.follow(cpus)
            self.affinity.pin(self.domain)

    def migrate(self, pool: Cpupool) -> None:
        """Move it into a pool, where it may run on all physical CPUs; in the one where it is nothing changes.

        Raises:
            UserError: the pool has no physical CPUs, or the domain is gone.
        """
        with self._pinning:
            if self.domain.pool != pool.id:
                self.domain.machine.cpupools.migrate(self.domain, pool)
                self.affinity.forget(frozenset(pool.cpus))


class Domains:
    """All domains of a daemon's machine, Domain 0 excepted."""

    def __init__(
        self, machine: Machine, places: Places, log: Log, messages: Messages, console_log: ConsoleLog | None = None
    ) -> None:
        self.machine = machine
        self.log = log
        self.messages = messages
        self._places = places
        self._journal = Journal(places)
        self._console_log = console_log
        self._ptys = Ptys()
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._domains: dict[int, ManagedDomain] = {}
        self._names: set[str] = {DOMAIN_0}
        self._past: deque[tuple[int, str, Console]] = deque(maxlen=PAST)
        self._listeners: list[queue.SimpleQueue[Event]] = []
        self._ended: queue.SimpleQueue[Domain | None] = queue.SimpleQueue()
        self._closing = False
        self._journal.write([])
        machine.on_shutdown = self._ended.put
        self._monitor = threading.Thread(target=self._watch_ends, name="monitor", daemon=True)
        self._monitor.start()

    # --- finding ----------------------------------------------------------------------------------------------

    def all(self) -> list[ManagedDomain]:
        """Every domain, by number."""
        with self._lock:
            return [self._domains[domid] for domid in sorted(self._domains)]

    def find(self, qualifier: str | int) -> ManagedDomain:
        """The domain of this number or name; a text of digits is a number.

        Raises:
            Refusal: there is none.
        """
        with self._lock:
            text = str(qualifier)
            if text.isascii() and text.isdigit():
                found = self._domains.get(int(text))
                if found is not None:
                    return found
            else:
                for managed in self._domains.values():
                    if managed.name == text:
                        return managed
        if text in ("0", DOMAIN_0):
            raise Refusal(INVALID, "Domain 0 is paravirt itself, and cannot be controlled like a guest.")
        raise Refusal(NOT_FOUND, f"There is no domain {text!r}.")

    def console(self, qualifier: str) -> tuple[str, int, Console]:
        """The name, number and console of a domain, which may be gone: then the latest of that name or number.

        Raises:
            Refusal: there is none.
        """
        try:
            managed = self.find(qualifier)
            return managed.name, managed.domid, managed.domain.console
        except Refusal:
            with self._lock:
                for domid, name, console in reversed(self._past):
                    if qualifier in (name, str(domid)):
                        return name, domid, console
            raise

    def follow_pools(self) -> None:
        """Pools have other physical CPUs than before: what that changes in affinities."""
        cpus = {pool.id: frozenset(pool.cpus) for pool in self.machine.cpupools.all()}
        for managed in self.all():
            with contextlib.suppress(UserError):  # it went while we were looking
                pool = managed.domain.pool
                if pool in cpus:  # else it has just come to a new one
                    managed.follow_pool(cpus[pool])

    # --- events -----------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def events(self) -> Iterator[queue.SimpleQueue[Event]]:
        """A queue of all that happens to domains while this lasts."""
        mine: queue.SimpleQueue[Event] = queue.SimpleQueue()
        with self._lock:
            self._listeners.append(mine)
        try:
            yield mine
        finally:
            with self._lock:
                self._listeners.remove(mine)

    def _publish(self, kind: str, domid: int, **fields: Any) -> None:
        event = {"kind": kind, "domid": domid, **fields}
        self.log.write(f"domain {kind}", **{key: value for key, value in event.items() if key != "kind"})
        with self._lock:
            for listener in self._listeners:
                listener.put(event)

    # --- making and ending ------------------------------------------------------------------------------------

    def create(self, config: DomainConfig, paused: bool = False, monitored: bool = True) -> ManagedDomain:
        """Build a domain and start it, unless it is to be ``paused``.

        Raises:
            Refusal: the name is taken.
            UserError: a file cannot be used, or the machine has not enough memory.
        """
        machine = self.machine
        pool = machine.cpupools.find(config.pool or FIRST)
        affinity = Affinity(
            config.cpus, config.cpus_soft, config.maxvcpus, machine.host.nr_pcpus, machine.parallel_vcpus,
            frozenset(pool.cpus),
        )  # fmt: skip
        with self._changed:
            # Who saw a console end may make the next domain of that name before the monitor has come to the end.
            self._changed.wait_for(lambda: not self._is_leaving(config.name), LEAVING)
        with self._reserved(config.name):
            pty = Pty()
            try:
                domain = self._build(config, pty, affinity)
            except BaseException:
                pty.close()
                raise
            managed = ManagedDomain(domain, config, pty, monitored, affinity)
            self._ptys.connect(pty, domain.console)
            with self._lock:
                self._domains[domain.domid] = managed
                self._write_journal()
        self.machine.call(lambda: self._describe(managed))
        self._publish("created", domain.domid, name=config.name)
        self.messages.add(f"d{domain.domid}: created: {config.name}, {config.memory} MiB, {config.maxvcpus} vcpus")
        if not paused:
            domain.unpause()
        return managed

    def _describe(self, managed: ManagedDomain) -> None:
        """What libxl leaves in a domain's /vm directory (domcreate_bootloader_done in libxl_create.c)."""
        config = managed.config
        facts = {"image/ostype": "linux", "image/kernel": config.kernel, "start_time": f"{managed.started:.2f}",
                 "image/ramdisk": config.ramdisk, "image/cmdline": config.cmdline}  # fmt: skip
        for path, value in facts.items():
            if value:
                self.machine.store.set(f"/vm/{managed.uuid}/{path}", value.encode("utf-8", "surrogateescape"))

    def _is_leaving(self, name: str) -> bool:
        """Whether a domain of this name has shut down, and the monitor is about to do something about it.

        Its console is the first of it to end, and what a client learns it by.
        """
        return not self._closing and any(
            one.name == name and one.domain.console.closed and one.monitored for one in self._domains.values()
        )

    def _build(self, config: DomainConfig, pty: Pty, affinity: Affinity) -> Domain:
        domain = self.machine.create(
            config.path(config.kernel),
            config.path(config.ramdisk) if config.ramdisk else None,
            config.cmdline,
            memory=config.memory,
            vcpus=config.maxvcpus,
            name=config.name,
            paused=True,
            max_memory=config.maxmem,
            online_vcpus=config.vcpus,
            identity=uuids.UUID(config.uuid),
            limits=config.limits,
            tty=pty.path,
            keep=True,
            devices=config.all_devices,
            pool=config.pool or FIRST,
        )
        try:
            domain.sched_set(**config.scheduling)
            affinity.pin(domain)
        except UserError:
            domain.destroy()
            raise
        if self._console_log is not None:
            self._console_log.follow(config.name, domain.console)
        return domain

    @contextlib.contextmanager
    def _reserved(self, name: str) -> Iterator[None]:
        """Take a name, which stays taken unless this ends in an exception."""
        with self._lock:
            if name in self._names:
                raise Refusal(EXISTS, f"There is a domain with the name {name!r} already.")
            if self._closing:
                raise UserError("The daemon is about to end.")
            self._names.add(name)
        try:
            yield
        except BaseException:
            with self._lock:
                self._names.discard(name)
            raise

    def destroy(self, managed: ManagedDomain) -> None:
        """End a domain at once."""
        managed.domain.destroy()
        self._forget(managed)

    def _forget(self, managed: ManagedDomain) -> None:
        """A domain is gone: only its console stays for a while."""
        with self._lock:
            if self._domains.pop(managed.domid, None) is None:
                return
            self._names.discard(managed.name)
            self._past.append((managed.domid, managed.name, managed.domain.console))
            self._write_journal()
            self._changed.notify_all()
        self._ptys.disconnect(managed.pty)
        self.messages.add(f"d{managed.domid}: destroyed")
        self._publish("destroyed", managed.domid)

    def rename(self, managed: ManagedDomain, name: str, identity: str | None = None) -> None:
        """Give a domain another name (and, if given, identifier); xenstore says so too.

        Raises:
            Refusal, UserError: the name is taken, or cannot be one.
        """
        check_name(name)
        with self._reserved(name):
            self.machine.call(lambda: self._rename_in_store(managed, name, identity or managed.uuid))
        with self._lock:
            self._names.discard(managed.name)
            managed.name = managed.domain.name = name
            managed.uuid = identity or managed.uuid
            self._write_journal()
        self._publish("renamed", managed.domid, name=name)

    def _rename_in_store(self, managed: ManagedDomain, name: str, identity: str) -> None:
        store, home = self.machine.store, f"/local/domain/{managed.domid}"
        if store.get(home) is None:
            return
        if identity != managed.uuid:
            store.remove(f"/vm/{managed.uuid}")
            store.belongs(managed.domid, f"/vm/{identity}")
            store.set(f"/vm/{identity}", "")
            store.set(f"/vm/{identity}/uuid", identity)
            store.set(f"{home}/vm", f"/vm/{identity}")
        store.set(f"/vm/{identity}/name", name)
        store.set(f"{home}/name", name)

    def _write_journal(self) -> None:
        self._journal.write([{"domid": one.domid, "name": one.name} for one in self._domains.values()])

    # --- ends -------------------------------------------------------------------------------------------------

    def _watch_ends(self) -> None:
        while (domain := self._ended.get()) is not None:
            try:
                self._handle_end(domain)
            except Exception as error:  # noqa: BLE001 - one domain's end must not keep us from the others'
                self.log.write("defect", error=repr(error), domid=domain.domid)

    def _handle_end(self, domain: Domain) -> None:
        with self._lock:
            managed = self._domains.get(domain.domid)
        reason = domain.reason
        if managed is None or reason is None or reason is ShutdownReason.DESTROYED:
            return
        if domain.crash_report:
            self.messages.add(domain.crash_report)
        code = reason.value
        self.messages.add(f"d{domain.domid}: shut down, reason {code} ({reason.name.lower()})")
        self._publish("shutdown", domain.domid, code=code)
        if self._closing:
            return
        if not managed.monitored:
            self._publish("done", domain.domid)
        elif reason is ShutdownReason.SUSPEND:
            self._leave(managed)
            self._publish("suspended", domain.domid)
            self._publish("done", domain.domid)
        else:
            self._act(managed, code, managed.config.actions[_EVENTS[reason]])

    def _act(self, managed: ManagedDomain, code: int, action: str) -> None:
        """Do what the configuration says about an end."""
        self._publish("action", managed.domid, code=code, action=action)
        if action == "soft-reset":
            self._publish("note", managed.domid, text="soft resets are not in this version; the domain is destroyed")
            action = "destroy"
        if action.startswith("coredump-"):
            self._publish("note", managed.domid, text=self._keep_report(managed))
            action = action.removeprefix("coredump-")
        if action == "preserve":
            self._leave(managed)
            self._publish("done", managed.domid)
            return
        config = managed.update or managed.config
        if action == "rename-restart":
            if not self._preserve(managed):
                return
            # Its disks, and its interfaces' addresses, are for the new one.
            self.machine.call(lambda: self.machine.devices.domain_ended(managed.domid))
        else:
            self._publish("cleanup", managed.domid)
            self.destroy(managed)
        if action == "destroy":
            self._publish("done", managed.domid)
        else:
            self._restart(managed, config)

    def _leave(self, managed: ManagedDomain) -> None:
        """Leave a domain that ended as it is."""
        with self._changed:
            managed.monitored = False
            self._changed.notify_all()

    def _keep_report(self, managed: ManagedDomain) -> str:
        """What stands for a core dump until there are any: the report on a crash, in a file."""
        if not managed.domain.crash_report:
            return "core dumps are not in this version"
        file = self._places.crashes / f"{managed.name}-{managed.domid}.txt"
        try:
            file.parent.mkdir(mode=0o700, exist_ok=True)
            file.write_text(managed.domain.crash_report, encoding="utf-8")
        except OSError as error:
            return f"core dumps are not in this version, and the crash report cannot be written: {error.strerror}"
        return f"core dumps are not in this version; the crash report is in {file}"

    def _preserve(self, managed: ManagedDomain) -> bool:
        """Keep a domain that ended under another name, with the time in it: whether that worked."""
        name = managed.name + time.strftime("-%Y%m%dT%H%MZ", time.gmtime())
        self._leave(managed)
        try:
            self.rename(managed, name, str(uuids.uuid4()))
        except ParavirtError as error:
            self._publish("failed", managed.domid, message=str(error))
            return False
        return True

    def _restart(self, old: ManagedDomain, config: DomainConfig) -> None:
        def again() -> None:
            try:
                new = self.create(config)
            except ParavirtError as error:
                self._publish("failed", old.domid, message=str(error))
                return
            self._publish("restarted", old.domid, new=new.domid)

        timer = threading.Timer(max(0.0, old.may_restart_at - time.monotonic()), again)
        timer.daemon = True
        timer.start()

    # --- the daemon's end -------------------------------------------------------------------------------------

    def close(self, patience: float) -> list[str]:
        """Ask all domains to power off, wait up to ``patience`` seconds, and end those that still run: their names."""
        with self._lock:
            self._closing = True
        for managed in self.all():
            if not managed.domain.ended:
                self.request(managed, "poweroff")
                with contextlib.suppress(UserError):
                    while managed.domain.unpause():
                        continue  # pauses nest, and a guest that is paused does not hear us
        deadline = time.monotonic() + patience
        for managed in self.all():
            with contextlib.suppress(TimeoutError):
                managed.domain.wait(max(0.0, deadline - time.monotonic()))
        stopped = [managed.name for managed in self.all() if not managed.domain.ended]
        # Ends that have come about are told before the domains go: Domain 0's thread passes them on, then the monitor.
        self.machine.call(lambda: self._ended.put(None))
        self._monitor.join()
        for managed in self.all():
            self.destroy(managed)
        self._ptys.stop()
        self._journal.remove()
        return stopped

    def request(self, managed: ManagedDomain, what: str) -> None:
        """Ask a guest by xenstore to power off, reboot or the like (``control/shutdown``)."""
        self.write(managed, "control/shutdown", what)

    def write(self, managed: ManagedDomain, path: str, value: str) -> None:
        """Write a node in a domain's home in xenstore, if it is still there."""

        def write() -> None:
            home = f"/local/domain/{managed.domid}"
            if self.machine.store.get(home) is not None:
                self.machine.store.set(f"{home}/{path}", value)

        self.machine.call(write)

    def read(self, managed: ManagedDomain, path: str) -> str | None:
        """A node in a domain's home in xenstore."""
        value = self.machine.call(lambda: self.machine.store.get(f"/local/domain/{managed.domid}/{path}"))
        return None if value is None else value.decode("utf-8", "replace")
