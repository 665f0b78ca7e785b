"""Configurations in the JSON of libxl, which ``xl list -l`` and ``xl create -n`` print.

Fields that have their default are left out, as libxl leaves them out.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Final

from paravirt.domain0.xlcfg.config import EVENTS, SCHEDULING, DomainConfig, cpu_set
from paravirt.domain0.xlcfg.devices import DEVICE_SETTINGS

_ACTIONS = {"rename-restart": "restart_rename"}
_DESTROY = "destroy"
_NO_DOMID: Final = 0xFFFFFFFF
"""libxl keeps this in a stored configuration: the number may be another one the next time."""


def domain_config(config: DomainConfig, pcpus: int = 1) -> dict[str, Any]:
    """A libxl_domain_config. The machine has ``pcpus`` physical CPUs."""
    build: dict[str, Any] = {}
    if config.given:
        build["max_vcpus"] = config.maxvcpus
    if "vcpus" in config.given:
        build["avail_vcpus"] = list(range(config.vcpus))
    for field, entries in (("vcpu_hard_affinity", config.cpus), ("vcpu_soft_affinity", config.cpus_soft)):
        if entries:
            build[field] = [sorted(cpu_set(entry, pcpus)) for entry in entries]
    build["max_memkb"] = config.maxmem * 1024
    build["target_memkb"] = config.memory * 1024
    limits = config.limits.given()
    if "max_event_channels" in limits:
        build["event_channels"] = limits.pop("max_event_channels")
    build.update(limits)
    build["sched_params"] = _in_units(config.scheduling)
    build["claim_mode"] = "True"
    build["kernel"] = config.kernel
    if config.cmdline:
        build["cmdline"] = config.cmdline
    if config.ramdisk:
        build["ramdisk"] = config.ramdisk
    build.update({"type.pv": {}, "arch_arm": {}, "arch_x86": {}})
    created = {"type": "pv", "name": config.name, "uuid": config.uuid}
    if config.pool:
        created["pool_name"] = config.pool
    result: dict[str, Any] = {"c_info": {**created, "run_hotplug_scripts": "True"}, "b_info": build}
    for key, setting in DEVICE_SETTINGS.items():
        if config.devices.get(key):
            result[setting.libxl_name] = [setting.to_libxl(device) for device in config.devices[key]]
    for event in EVENTS:
        action = config.actions[event]
        if action != _DESTROY:
            result[event] = _ACTIONS.get(action, action.replace("-", "_"))
    return result


def running_config(
    config: DomainConfig, name: str, uuid: str, scheduling: dict[str, Any], pcpus: int
) -> dict[str, Any]:
    """The configuration of a domain that there is, with what may have changed since it was made."""
    found = domain_config(dataclasses.replace(config, name=name, uuid=uuid), pcpus)
    created, build = found["c_info"], found["b_info"]
    found["c_info"] = _inserted(created, "uuid", {"domid": _NO_DOMID})
    build["sched_params"] = _in_units(scheduling)
    build["arch_x86"] = {"msr_relaxed": "False"}
    found["b_info"] = _inserted(build, "sched_params", {"video_memkb": 0})
    return found


def _inserted(fields: dict[str, Any], before: str, new: dict[str, Any]) -> dict[str, Any]:
    """The same object with further fields in it, in front of one of its own."""
    at = list(fields).index(before)
    items = list(fields.items())
    return dict(items[:at]) | new | dict(items[at:])


def _in_units(scheduling: dict[str, Any]) -> dict[str, Any]:
    """Parameters of scheduling with the units of xl.cfg, the scheduler's name first."""
    units = dict(SCHEDULING.values())
    return {
        name: value if isinstance(value, str) else value // units.get(name, 1) for name, value in scheduling.items()
    }


def domain_0_config(scheduling: dict[str, Any]) -> dict[str, Any]:
    """What there is to say about Domain 0."""
    build = {"max_memkb": 0, "target_memkb": 0, "sched_params": _in_units(scheduling), "type.pv": {}, "arch_arm": {},
             "arch_x86": {}}  # fmt: skip
    return {"c_info": {"type": "pv", "name": "Domain-0"}, "b_info": build}
