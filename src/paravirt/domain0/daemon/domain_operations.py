"""Operations on domains, shaped like those of domctl: what ``xl``'s verbs about a domain ask for."""

from __future__ import annotations

import queue
from typing import Any, Final

from paravirt.domain0.daemon.domains import DOMAIN_0, ManagedDomain
from paravirt.domain0.daemon.protocol import INVALID, NOT_FOUND, UNSUPPORTED, Refusal
from paravirt.domain0.daemon.requests import Request, operation
from paravirt.domain0.toolstack import memory
from paravirt.domain0.toolstack.cpupools import FIRST
from paravirt.domain0.toolstack.memory import KIB_PER_FRAME
from paravirt.domain0.xlcfg.config import DomainConfig
from paravirt.errors import UserError
from paravirt.hypervisor.views import Domain as DomainView
from paravirt.hypervisor.views.pools import pool_of

LIVENESS: Final = 1.0
"""Seconds between looks whether a client that waits for an event is still there."""

_ZERO_UUID: Final = "00000000-0000-0000-0000-000000000000"
_DOMAIN_0_CREDIT: Final = {"weight": 256, "cap": 0}
_WAITED_FOR: Final = ("shutdown", "destroyed")


# --- what there is -----------------------------------------------------------------------------------------------


def _row(managed: ManagedDomain) -> dict[str, Any]:
    """One domain as XEN_DOMCTL_getdomaininfo has it."""

    def look(view: DomainView) -> dict[str, Any]:
        up = [vcpu for vcpu in view.vcpus if vcpu.is_up]
        return {
            "memory_kib": view.tot_pages * KIB_PER_FRAME,
            "max_kib": view.max_pages * KIB_PER_FRAME,
            "vcpus_online": len(up),
            "max_vcpu_id": len(view.vcpus) - 1,
            "running": any(vcpu.runstate == 0 for vcpu in up),
            "blocked": all(vcpu.is_blocked for vcpu in up),
            "paused": view.is_paused,
            "shutdown": view.is_shut_down,
            "shutdown_reason": view.shutdown_code if view.is_shut_down else 0,
            "dying": view.is_dying,
            "cpu_time_ns": sum(vcpu.cpu_time for vcpu in view.vcpus),
            "cpupool": pool_of(view),
        }

    return {
        "domid": managed.domid,
        "name": managed.name,
        "uuid": managed.uuid,
        **managed.domain.control(look),
        "started": managed.started,
    }


def _domain_0(request: Request) -> dict[str, Any]:
    """Domain 0 is a thread here, and has no memory of the machine's."""
    return {
        "domid": 0,
        "name": DOMAIN_0,
        "uuid": _ZERO_UUID,
        "memory_kib": 0,
        "max_kib": 0,
        "vcpus_online": 1,
        "max_vcpu_id": 0,
        "running": True,
        "blocked": False,
        "paused": False,
        "shutdown": False,
        "dying": False,
        "cpu_time_ns": request.machine.service_time_ns(),
        "shutdown_reason": 0,
        "cpupool": FIRST,
        "started": request.daemon.facts["started"],
    }


@operation("list")
def list_domains(request: Request) -> list[dict[str, Any]]:
    """All domains, or the one given, as rows."""
    wanted = request.string("domain", "")
    if wanted in ("0", DOMAIN_0):
        return [_domain_0(request)]
    if wanted:
        return [_row(request.domain())]
    rows = [_domain_0(request)]
    for managed in request.domains.all():
        try:
            rows.append(_row(managed))
        except UserError:
            continue  # it went while we were looking
    return rows


@operation("config")
def configuration(request: Request) -> dict[str, Any]:
    """The configuration of a domain, and what has become of its name, its identifier and its scheduling."""
    if request.string("domain") in ("0", DOMAIN_0):
        scheduler = request.machine.sched_info()["name"]
        return {"domid": 0, "config": None, "scheduling": {"sched": scheduler, **sched_get(request)}}
    managed = request.domain()
    scheduler = request.machine.sched_info(managed.domain.pool)["name"]
    return {
        "domid": managed.domid,
        "name": managed.name,
        "uuid": managed.uuid,
        "config": managed.config.to_json(),
        "scheduling": {"sched": scheduler, **managed.domain.sched_get()},
    }


@operation("vcpus")
def list_vcpus(request: Request) -> list[dict[str, Any]]:
    """The vcpus of a domain, as XEN_DOMCTL_getvcpuinfo has them."""
    managed = request.domain()

    def look(view: DomainView) -> list[dict[str, Any]]:
        return [
            {
                "vcpu": vcpu.id,
                "online": vcpu.is_up,
                "running": vcpu.runstate == 0,
                "blocked": vcpu.is_blocked,
                "cpu": vcpu.pcpu,
                "cpu_time_ns": vcpu.cpu_time,
                "hard": sorted(managed.affinity.hard[vcpu.id]),
                "soft": sorted(managed.affinity.soft[vcpu.id]),
            }
            for vcpu in view.vcpus
        ]

    return managed.domain.control(look)


# --- beginning and end -------------------------------------------------------------------------------------------


@operation("create")
def create(request: Request) -> dict[str, Any]:
    """Make a domain of a ``config``."""
    config = DomainConfig.from_json(request.object("config"))
    managed = request.domains.create(config, request.flag("paused"), not request.flag("unmonitored"))
    return {"domid": managed.domid, "name": managed.name}


@operation("config-update")
def update(request: Request) -> None:
    """The configuration that the domain's next restart uses."""
    managed = request.domain()
    managed.update = DomainConfig.from_json(request.object("config"))


@operation("destroy")
def destroy(request: Request) -> None:
    """End a domain at once."""
    request.domains.destroy(request.domain())


@operation("pause")
def pause(request: Request) -> None:
    """Keep a domain from running; pauses nest."""
    request.domain().domain.pause()


@operation("unpause")
def unpause(request: Request) -> bool:
    """Take back one pause: false if there was none."""
    return request.domain().domain.unpause()


@operation("shutdown")
def shutdown(request: Request) -> None:
    """Ask domains to power off, or to ``reboot``; with ``wait``, tell of each one's end and return after the last."""
    what = "reboot" if request.flag("reboot") else "poweroff"
    with request.domains.events() as events:
        if request.flag("all"):
            targets = [managed for managed in request.domains.all() if not managed.domain.ended]
        else:
            targets = [request.domain()]
            if targets[0].domain.ended:
                raise Refusal(INVALID, f"The domain {targets[0].name} has shut down already.")
        for managed in targets:
            request.tell({"kind": "asked", "domid": managed.domid})
            request.domains.request(managed, what)
        if request.flag("wait"):
            _wait_for_ends(request, events, {managed.domid for managed in targets})


def _wait_for_ends(request: Request, events: queue.SimpleQueue[dict[str, Any]], domids: set[int]) -> None:
    while domids and request.client_is_there():
        event = _next(events)
        if event is not None and event["domid"] in domids and event["kind"] in _WAITED_FOR:
            domids.remove(event["domid"])
            request.tell(event)


@operation("follow")
def follow(request: Request) -> None:
    """Tell all that happens to a domain, through its restarts, until it is gone or kept as it is."""
    with request.domains.events() as events:
        managed = request.domain()
        domid = managed.domid
        request.tell({"kind": "following", "domid": domid, "name": managed.name})
        if managed.domain.ended and not managed.monitored:
            return
        acting = False
        while request.client_is_there():
            event = _next(events)
            if event is None or event["domid"] != domid:
                continue
            request.tell(event)
            kind = event["kind"]
            if kind == "restarted":
                domid, acting = event["new"], False
            elif kind in ("done", "failed") or (kind == "destroyed" and not acting):
                return
            acting = acting or kind == "action"


def _next(events: queue.SimpleQueue[dict[str, Any]]) -> dict[str, Any] | None:
    try:
        return events.get(timeout=LIVENESS)
    except queue.Empty:
        return None


@operation("rename")
def rename(request: Request) -> None:
    """Give a domain another name."""
    request.domains.rename(request.domain(), request.string("name"))


# --- asking a guest ----------------------------------------------------------------------------------------------


@operation("sysrq")
def sysrq(request: Request) -> None:
    """Press a magic SysRq key of a Linux guest."""
    key = request.string("key")
    if len(key) != 1:
        raise Refusal(INVALID, "A SysRq key is a single letter.")
    request.domains.write(request.domain(), "control/sysrq", key)


@operation("trigger")
def trigger(request: Request) -> None:
    """Send a vcpu an NMI. The other triggers are for guests with virtual hardware."""
    name, number = request.string("trigger"), request.integer("vcpu", 0)
    managed = request.domain()
    if name != "nmi":
        raise Refusal(UNSUPPORTED, f"The trigger {name!r} is for fully virtualised guests; there is 'nmi'.")

    def send(view: DomainView) -> None:
        if not 0 <= number < len(view.vcpus):
            raise Refusal(INVALID, f"The domain has no vcpu {number}.")
        view.vcpus[number].send_nmi()

    managed.domain.control(send)


# --- memory and vcpus --------------------------------------------------------------------------------------------


@operation("mem-set")
def set_memory(request: Request) -> None:
    """Ask a guest to use ``kib`` of memory, and let it have no more."""
    domain, kib = request.domain().domain, request.integer("kib")
    request.machine.call(lambda: memory.set_target(domain, kib))


@operation("mem-max")
def set_memory_limit(request: Request) -> None:
    """Limit what a domain may have to ``kib``, without asking it for anything."""
    domain, kib = request.domain().domain, request.integer("kib")
    request.machine.call(lambda: memory.set_limit(domain, kib))


@operation("vcpu-set")
def set_vcpus(request: Request) -> None:
    """Ask a guest to use so many of its vcpus."""
    managed, count = request.domain(), request.integer("vcpus")
    most = managed.config.maxvcpus
    if not 1 <= count <= most:
        raise Refusal(INVALID, f"The domain {managed.name} has {most} vcpus, and cannot use {count}.")
    for number in range(most):
        request.domains.write(managed, f"cpu/{number}/availability", "online" if number < count else "offline")


@operation("sched-get")
def sched_get(request: Request) -> dict[str, int]:
    """A domain's parameters of scheduling, by their names in XEN_DOMCTL_scheduler_op; times in ns.

    The host's own scheduler runs Domain 0, as one thread among others. Under credit it has a line in xl's table
    nevertheless, which scripts expect: what Xen gives it unless told otherwise.
    """
    if request.string("domain") in ("0", DOMAIN_0):
        return dict(_DOMAIN_0_CREDIT) if request.machine.sched_info()["name"] == "credit" else {}
    return request.domain().domain.sched_get()


@operation("sched-set")
def sched_set(request: Request) -> None:
    """Change some of them."""
    request.domain().domain.sched_set(**request.object("parameters"))


@operation("vcpu-pin")
def pin_vcpu(request: Request) -> None:
    """Say which physical CPUs a vcpu (-1: every one) may use (``hard``), and would rather use (``soft``)."""
    managed, number = request.domain(), request.integer("vcpu")
    if not -1 <= number < managed.config.maxvcpus:
        raise Refusal(NOT_FOUND, f"The domain {managed.name} has no vcpu {number}.")
    vcpus = range(managed.config.maxvcpus) if number < 0 else (number,)
    managed.pin(vcpus, request.string("hard", ""), request.string("soft", ""))
