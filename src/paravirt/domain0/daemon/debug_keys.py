"""Debug keys: what the hypervisor can be told to print into its ring of messages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from paravirt.domain0.crash import crash_report
from paravirt.domain0.daemon.domains import ManagedDomain
from paravirt.domain0.daemon.protocol import UNSUPPORTED, Refusal
from paravirt.domain0.daemon.requests import Request, operation
from paravirt.errors import UserError
from paravirt.hypervisor.hypercalls.grant_frames import grants_of
from paravirt.hypervisor.views import Domain as DomainView
from paravirt.hypervisor.views import scheduler
from paravirt.hypervisor.views.pools import pool_of

_RUNSTATES: Final = ("running", "runnable", "blocked", "offline")


class _Key(NamedTuple):
    """What a key does: lines about the machine, and some about each domain."""

    summary: str
    machine: Callable[[Request], Iterator[str]] = lambda request: iter(())
    domain: Callable[[ManagedDomain, DomainView], Iterator[str]] | None = None


@operation("debug-keys")
def press(request: Request) -> None:
    """Press each of the ``keys``."""
    keys = request.string("keys")
    for key in keys:
        if key not in _KEYS:
            raise Refusal(UNSUPPORTED, f"There is no debug key {key!r} in this version ('h' lists those that are).")
    for key in keys:
        summary, machine, domain = _KEYS[key]
        add = request.domains.messages.add
        add(f"'{key}' pressed -> {summary}")
        for line in machine(request):
            add(line)
        if domain is not None:
            for managed in request.domains.all():
                add("\n".join(_about(managed, domain)))


def _about(managed: ManagedDomain, lines: Callable[[ManagedDomain, DomainView], Iterator[str]]) -> list[str]:
    try:
        return managed.domain.control(lambda view: list(lines(managed, view)))
    except UserError:
        return []  # it went while we were looking


def _help(request: Request) -> Iterator[str]:
    for key, (summary, _, _) in _KEYS.items():
        yield f" key '{key}' (ascii '{ord(key):02x}') => {summary}"


def _memory(request: Request) -> Iterator[str]:
    host = request.machine.host
    with host.lock:
        yield f"{host.free_frames} of {host.nr_frames} frames are free"


def _audit(request: Request) -> Iterator[str]:
    yield from str(request.machine.audit()).splitlines()


def _run_queues(request: Request) -> Iterator[str]:
    host = request.machine.host
    with host.lock:
        yield f"{host.nr_pcpus} physical CPUs, system time {host.now()} ns"
    free = request.machine.cpupools.free_cpus()
    if free:
        yield f"Free CPUs: {', '.join(map(str, free))}"
    for pool in request.machine.cpupools.all():
        yield f"Cpupool {pool.id} ({pool.name}): CPUs {', '.join(map(str, pool.cpus))}"
        facts = request.machine.sched_info(pool.id)
        yield f"    Scheduler: {facts.pop('name')}"
        for name, value in facts.items():
            yield f"    {name} = {value}"


def _registers(managed: ManagedDomain, view: DomainView) -> Iterator[str]:
    yield f"*** Dumping the vcpus of domain {view.domid} ({managed.name}) ***"
    yield from crash_report(view, managed.domain.image, "").splitlines()[1:]


def _summary(managed: ManagedDomain, view: DomainView) -> Iterator[str]:
    state = "shut down" if view.is_shut_down else "paused" if view.is_paused else "running"
    yield f"General information for domain {view.domid} ({managed.name}):"
    yield f"    {state}"
    yield f"    nr_pages={view.tot_pages} max_pages={view.max_pages} vm_assist={view.vm_assist:08x}"
    for vcpu in view.vcpus:
        running, blocked = vcpu.runstate == 0, vcpu.is_blocked
        yield f"    VCPU{vcpu.id}: CPU{vcpu.pcpu} is_running={running:d} blocked={blocked:d} up={vcpu.is_up:d}"


def _scheduling(managed: ManagedDomain, view: DomainView) -> Iterator[str]:
    shown = " ".join(f"{name}={value}" for name, value in scheduler.sched_get(view).items())
    yield f"    Domain {view.domid}: {shown} ran {scheduler.run_time(view)} ns in pool {pool_of(view)}"
    for vcpu in view.vcpus:
        yield f"        {view.domid}.{vcpu.id} {_RUNSTATES[vcpu.runstate]} cpu={vcpu.pcpu} time={vcpu.cpu_time} ns"


def _grants(managed: ManagedDomain, view: DomainView) -> Iterator[str]:
    grants = grants_of(view)
    yield f"gnttab usage: domain {view.domid}, version {grants.version}, {len(grants.shared)} of {grants.limit} frames"
    for ref, active in sorted(grants.active.items()):
        yield f"    ref {ref}: frame {active.mfn:#x}, used by domain {active.domid}"
    maptrack = view.state.maptrack
    yield f"    {len(maptrack.mappings)} grants of others' mapped"


_KEYS: Final = {
    "h": _Key("show this message", _help),
    "0": _Key("dump Domain 0's registers (it has none here: it is a part of this program)"),
    "F": _Key("audit the frame table (a key of paravirt's own)", _audit),
    "d": _Key("dump the registers of all vcpus", domain=_registers),
    "g": _Key("print grant table usage", domain=_grants),
    "m": _Key("memory info", _memory),
    "q": _Key("dump domain (and guest debug) info", domain=_summary),
    "r": _Key("dump run queues", _run_queues, _scheduling),
}
