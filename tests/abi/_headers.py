"""The distribution's copy of Xen's public headers, and what a C compiler reads out of them."""

import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

SYSTEM = Path("/usr/include")
CACHE = Path(__file__).resolve().parents[2] / ".cache" / "libxen-dev"

PREAMBLE = """\
#define __XEN_TOOLS__ 1
#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
"""


class Unavailable(Exception):
    """The headers, or a compiler for them, cannot be had here; the text says why."""


@dataclass(frozen=True)
class Header:
    """Where a module's facts come from, and which of the header's integers the module must have."""

    path: str
    required: str = r"\w+"
    optional: str = r"$^"


_OPS_ONLY = r"[a-z]\w*"

#: Every module of paravirt.abi, with its public header.
HEADERS = {
    "xen": Header("xen.h"),
    "arch_x86": Header("arch-x86/xen.h"),
    "arch_x86#64": Header("arch-x86/xen-x86_64.h"),
    "errno": Header("errno.h"),
    "event_channel": Header("event_channel.h"),
    "sched": Header("sched.h"),
    "vcpu": Header("vcpu.h"),
    "memory": Header("memory.h"),
    "grant_table": Header("grant_table.h"),
    "physdev": Header("physdev.h"),
    "callback": Header("callback.h"),
    "version": Header("version.h"),
    "features": Header("features.h"),
    "nmi": Header("nmi.h"),
    "elfnote": Header("elfnote.h"),
    "pmu": Header("pmu.h"),
    "cpuid": Header("arch-x86/cpuid.h"),
    "xen_compat": Header("xen-compat.h", optional="__XEN_INTERFACE_VERSION__"),
    "platform": Header("platform.h", rf"XENPF_{_OPS_ONLY}|XEN_EFI_{_OPS_ONLY}|XEN_FW_\w+"),
    "domctl": Header("domctl.h", rf"XEN_DOMCTL_{_OPS_ONLY}|XEN_DOMCTL_\w*OP_\w+|XEN_VM_EVENT_\w+"),
    "sysctl": Header("sysctl.h", rf"XEN_SYSCTL_{_OPS_ONLY}|XEN_SYSCTL_\w*OP_\w+|PMSTAT_get\w+"),
    "hvm_op": Header("hvm/hvm_op.h", r"HVMOP_\w+"),
    "hvm_params": Header("hvm/params.h"),
    "dm_op": Header("hvm/dm_op.h", rf"XEN_DMOP_{_OPS_ONLY}", optional="XEN_DMOP_no_gfns"),
    "flask_op": Header("xsm/flask_op.h"),
    "xenoprof": Header("xenoprof.h"),
    "kexec": Header("kexec.h"),
    "tmem": Header("tmem.h"),
    "argo": Header("argo.h"),
    "hypfs": Header("hypfs.h"),
    "xen_mca": Header("arch-x86/xen-mca.h", rf"XEN_MC_{_OPS_ONLY}|__HYPERVISOR_\w+"),
    "io.console": Header("io/console.h"),
    "io.xs_wire": Header("io/xs_wire.h"),
    "io.xenbus": Header("io/xenbus.h"),
    "io.ring": Header("io/ring.h"),
    "io.blkif": Header("io/blkif.h"),
    "io.netif": Header("io/netif.h", optional=r"_?XEN_NETIF_CTRL\w*|_(NET[TR]XF|XEN_NETIF)_\w+"),
}


def _download() -> Path:
    """Unpack libxen-dev into the cache of this clone; nothing is installed."""
    if not (CACHE / "usr/include/xen/xen.h").is_file():
        if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
            raise Unavailable("Xen's public headers are not installed, and this system has no apt-get")
        CACHE.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE.parent) as scratch:
            fetched = subprocess.run(
                ["apt-get", "download", "libxen-dev"],
                cwd=scratch,
                capture_output=True,
                text=True,
                check=False,
            )
            packages = list(Path(scratch).glob("*.deb"))
            if fetched.returncode or not packages:
                raise Unavailable(f"apt-get download libxen-dev failed: {fetched.stderr.strip()[-300:]}")
            unpacked = Path(scratch, "unpacked")
            subprocess.run(["dpkg-deb", "-x", packages[0], unpacked], check=True)
            # Renamed only when complete, so that an interrupted run leaves no half of it behind.
            shutil.rmtree(CACHE, ignore_errors=True)
            unpacked.rename(CACHE)
    return CACHE / "usr/include"


@cache
def include_directory() -> Path:
    """The directory in which ``xen/xen.h`` of Xen 4.17 is.

    Raises:
        Unavailable: there is no compiler, the headers cannot be had, or they are of another version.
    """
    if shutil.which("gcc") is None:
        raise Unavailable("gcc is not installed")
    directory = SYSTEM if (SYSTEM / "xen/xen.h").is_file() else _download()
    # The domctl version changes with nearly every release: 0x15 is that of 4.16 and 4.17.
    version = re.search(r"XEN_DOMCTL_INTERFACE_VERSION\s+(\w+)", (directory / "xen/domctl.h").read_text())
    if version is None or int(version[1], 16) != 0x15:
        raise Unavailable("the headers here are not Xen 4.17's, of which the modules are a copy")
    return directory


def source(lines: list[str]) -> str:
    """A C program that includes every header and runs ``lines`` in its main function."""
    includes = "".join(f"#include <xen/{header.path}>\n" for header in HEADERS.values())
    ring = "#define xen_mb() ((void)0)\nDEFINE_RING_TYPES(probe, uint64_t, uint64_t);\n"
    return PREAMBLE + includes + ring + "int main(void)\n{\n" + "\n".join(lines) + "\nreturn 0;\n}\n"


def _gcc(program: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["gcc", "-w", "-fmax-errors=0", "-isystem", str(include_directory()), *arguments, str(program)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def run(lines: list[str]) -> list[str]:
    """Compile and run such a program; the lines that it prints."""
    with tempfile.TemporaryDirectory() as scratch:
        program = Path(scratch, "probe.c")
        program.write_text(source(lines))
        compiled = _gcc(program, "-o", str(program.with_suffix("")))
        if compiled.returncode:
            raise AssertionError(f"Xen's headers do not know a name:\n{compiled.stderr[:3000]}")
        return subprocess.run(
            [program.with_suffix("")], capture_output=True, text=True, check=True
        ).stdout.splitlines()


def _candidates(header: str) -> list[str]:
    """Names of a header's object-like macros and enumerators, whatever they stand for."""
    text = (include_directory() / "xen" / header).read_text()
    text = re.sub(r"/\*.*?\*/", " ", text, flags=re.DOTALL).replace("\\\n", " ")
    names = re.findall(r"^\s*#\s*define\s+(\w+)[ \t]+\S", text, flags=re.MULTILINE)
    for body in re.findall(r"\benum\b[^{};]*\{(.*?)\}", text, flags=re.DOTALL):
        lines = [line for line in body.splitlines() if not line.lstrip().startswith("#")]
        names += [item.split("=")[0].strip() for item in "\n".join(lines).split(",")]
    if header == "errno.h":
        names += [f"XEN_{name}" for name in re.findall(r"XEN_ERRNO\((\w+),", text)]
    return [name for name in dict.fromkeys(names) if name.isidentifier()]


def integers(header: str) -> set[str]:
    """Names of a header's macros and enumerators that are integer constants for a 64-bit x86 guest."""
    names = _candidates(header)
    probes = [f"{{ enum {{ probe = ({name}) }}; }}" for name in names]
    with tempfile.TemporaryDirectory() as scratch:
        program = Path(scratch, "probe.c")
        text = source(probes)
        program.write_text(text)
        first = text.splitlines().index(probes[0]) + 1 if probes else 0
        said = _gcc(program, "-fsyntax-only").stderr
    # A name that is no constant gives an error on its own line, or a note that its expansion gave one.
    bad = {int(line) - first for line in re.findall(r"probe\.c:(\d+):\d+: (?:error|note)", said)}
    return {name for index, name in enumerate(names) if index not in bad}
