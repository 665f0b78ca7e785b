"""Operations on the machine as a whole, shaped like those of sysctl."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from paravirt.domain0.daemon.protocol import NOT_FOUND, VERSION, Refusal
from paravirt.domain0.daemon.requests import Request, operation
from paravirt.domain0.toolstack.limits import FRAMES_PER_MIB
from paravirt.domain0.xlcfg.config import check_name
from paravirt.hypervisor import cpuid
from paravirt.hypervisor.hypercalls import version

_POOL_NAME = "/local/pool/0/name"


@operation("hello")
def hello(request: Request) -> dict[str, Any]:
    """Who the daemon is. What the first client is to be told is told once."""
    notices, request.daemon.notices[:] = list(request.daemon.notices), []
    return {"version": VERSION, "pid": os.getpid(), "notices": notices}


@operation("stop")
def stop(request: Request) -> int:
    """End the daemon: guests are asked to power off first. Its process number; it ends after this reply."""
    request.daemon.stop()
    return os.getpid()


@operation("info")
def info(request: Request) -> dict[str, Any]:
    """What XEN_SYSCTL_physinfo and xen_version say."""
    host = request.machine.host
    with host.lock:
        total, free = host.nr_frames, host.free_frames
    pcpus = host.nr_pcpus
    uname = os.uname()
    return {
        "host": uname.nodename,
        "release": uname.release,
        "version": uname.version,
        "machine": uname.machine,
        "nr_cpus": pcpus,
        "cpu_khz": _cpu_khz(),
        "hw_caps": [
            cpuid.FEATURES_EDX, cpuid.FEATURES_ECX, cpuid.EXTENDED_EDX, cpuid.EXTENDED_ECX, 0, cpuid.FEATURES_7_EBX,
            0, 0,
        ],
        "virt_caps": ["pv", "gnttab-v1", "gnttab-v2"],
        "total_memory_mib": total // FRAMES_PER_MIB,
        "free_memory_mib": free // FRAMES_PER_MIB,
        "xen_major": version.MAJOR,
        "xen_minor": version.MINOR,
        "xen_extra": version.EXTRAVERSION.decode(),
        "xen_caps": version.CAPABILITIES.decode(),
        "xen_scheduler": request.machine.sched_info()["name"],
        "xen_pagesize": version.PAGE_SIZE,
        "virt_start": version.VIRT_START,
        "xen_changeset": version.CHANGESET.decode(),
        "xen_commandline": request.daemon.facts["command_line"],
        "cc_compiler": "Python and Cython",
        "cc_compile_by": "paravirt",
    }  # fmt: skip


def _cpu_khz() -> int:
    """The host's processor speed, which is that of the guests' TSC."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return 0
    found = re.search(r"^cpu MHz\s*:\s*([0-9.]+)", text, re.MULTILINE)
    return int(float(found[1]) * 1000) if found else 0


@operation("dmesg")
def dmesg(request: Request) -> str:
    """The hypervisor's messages; with ``clear`` they are forgotten then."""
    return request.domains.messages.read(request.flag("clear"))


@operation("cpupools")
def cpupools(request: Request) -> list[dict[str, Any]]:
    """The pools of physical CPUs: there is one."""
    cpus = list(range(request.machine.host.nr_pcpus))
    scheduler = request.machine.sched_info()["name"]
    name = request.machine.call(lambda: request.machine.store.get(_POOL_NAME) or b"").decode()
    return [{"name": name, "cpus": cpus, "scheduler": scheduler, "domains": len(request.domains.all()) + 1}]


@operation("cpupool-rename")
def rename_cpupool(request: Request) -> None:
    """Give the pool another name."""
    pool, name = request.string("pool"), check_name(request.string("name"))
    (only,) = cpupools(request)
    if pool != only["name"]:
        raise Refusal(NOT_FOUND, f"There is no pool {pool!r}.")
    request.machine.call(lambda: request.machine.store.set(_POOL_NAME, name))


@operation("sched-info")
def sched_info(request: Request) -> dict[str, Any]:
    """The scheduler and its own parameters, after those of ``set`` were changed."""
    changed = request.object("set") if request.flag("change") else {}
    if changed:
        request.machine.set_sched_info(**changed)
    return request.machine.sched_info()
