"""Configurations in the JSON of libxl, which ``xl list -l`` and ``xl create -n`` print.

Fields that have their default are left out, as libxl leaves them out.
"""

from __future__ import annotations

from typing import Any

from paravirt.domain0.xlcfg.config import EVENTS, SCHEDULING, DomainConfig, cpu_set
from paravirt.domain0.xlcfg.devices import DEVICE_SETTINGS

_ACTIONS = {"rename-restart": "restart_rename"}
_DESTROY = "destroy"


def domain_config(config: DomainConfig, pcpus: int = 1) -> dict[str, Any]:
    """A libxl_domain_config. The machine has ``pcpus`` physical CPUs."""
    build: dict[str, Any] = {"max_vcpus": config.maxvcpus, "avail_vcpus": list(range(config.vcpus))}
    for field, entries in (("vcpu_hard_affinity", config.cpus), ("vcpu_soft_affinity", config.cpus_soft)):
        if entries:
            build[field] = [sorted(cpu_set(entry, pcpus)) for entry in entries]
    if config.cpus or config.cpus_soft:
        build["numa_placement"] = "False"
    build["max_memkb"] = config.maxmem * 1024
    build["target_memkb"] = config.memory * 1024
    limits = config.limits.given()
    if "max_event_channels" in limits:
        build["event_channels"] = limits.pop("max_event_channels")
    build.update(limits)
    build["sched_params"] = {
        name: config.scheduling[name] // unit for name, unit in SCHEDULING.values() if name in config.scheduling
    }
    build["claim_mode"] = "True"
    build["kernel"] = config.kernel
    if config.cmdline:
        build["cmdline"] = config.cmdline
    if config.ramdisk:
        build["ramdisk"] = config.ramdisk
    build.update({"type.pv": {}, "arch_arm": {}, "arch_x86": {}})
    result: dict[str, Any] = {
        "c_info": {"type": "pv", "name": config.name, "uuid": config.uuid, "run_hotplug_scripts": "True"},
        "b_info": build,
    }
    for key, setting in DEVICE_SETTINGS.items():
        if config.devices.get(key):
            result[setting.libxl_name] = [setting.to_libxl(device) for device in config.devices[key]]
    for event in EVENTS:
        action = config.actions[event]
        if action != _DESTROY:
            result[event] = _ACTIONS.get(action, action.replace("-", "_"))
    return result


def domain_0_config() -> dict[str, Any]:
    """What there is to say about Domain 0."""
    return {
        "c_info": {"type": "pv", "name": "Domain-0"},
        "b_info": {"sched_params": {}, "type.pv": {}, "arch_arm": {}, "arch_x86": {}},
    }
