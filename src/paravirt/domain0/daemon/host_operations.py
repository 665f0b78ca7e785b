"""Operations on the machine as a whole, shaped like those of sysctl."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from paravirt.domain0.daemon.protocol import VERSION
from paravirt.domain0.daemon.requests import Request, operation
from paravirt.domain0.toolstack.cpupools import FIRST
from paravirt.domain0.toolstack.limits import FRAMES_PER_MIB
from paravirt.hypervisor import cpuid
from paravirt.hypervisor.hypercalls import version


@operation("hello")
def hello(request: Request) -> dict[str, Any]:
    """Who the daemon is. What the first client is to be told is told once."""
    notices, request.daemon.notices[:] = list(request.daemon.notices), []
    return {"version": VERSION, "pid": os.getpid(), "notices": notices}


@operation("stop")
def stop(request: Request) -> int:
    """End the daemon: guests are asked to power off first. Its process number; it ends after this reply."""
    request.afterwards = request.daemon.stop
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
        "free_cpus": request.machine.cpupools.free_cpus(),
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


@operation("sched-info")
def sched_info(request: Request) -> dict[str, Any]:
    """The scheduler of a pool (by default, of the first) and its own parameters, after those of ``set`` were
    changed."""
    number = request.integer("pool", FIRST)
    changed = request.object("set") if request.flag("change") else {}
    if changed:
        request.machine.set_sched_info(number, **changed)
    return request.machine.sched_info(number)
