"""The compiled hypervisor from Python, for tests: records, functions, and a machine with a made-up engine.

Records are read off the declaration files (``*.pxd``), functions off the table that Cython exports, so that
nothing about either is written down twice.  A :class:`Machine` here has memory, physical CPUs whose engine
only notes what it is asked, and domains without a builder: their page tables map every frame at its machine
address.
"""

from __future__ import annotations

import ctypes
import importlib
import mmap
import re
from collections.abc import Callable, Iterator
from itertools import pairwise, takewhile
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).resolve().parents[2] / "src"

SCALARS: dict[str, type[Any]] = {
    "u8": ctypes.c_uint8,
    "u16": ctypes.c_uint16,
    "u32": ctypes.c_uint32,
    "u64": ctypes.c_uint64,
    "i16": ctypes.c_int16,
    "i32": ctypes.c_int32,
    "i64": ctypes.c_int64,
    "int": ctypes.c_int,
    "bint": ctypes.c_int,
    "signed char": ctypes.c_int8,
    "pthread_mutex_t": ctypes.c_uint64 * 5,
    "pthread_cond_t": ctypes.c_uint64 * 6,
    "hypercall_fn": ctypes.c_void_p,
}
STRUCT = re.compile(r"^(?:    )?ctypedef struct (\w+)(?: \"[^\"]*\")?:$")
FIELD = re.compile(r"^(?:const )?((?:signed )?\w+(?:\s*\*+)?)\s+(\**\w+(?:\[\w+\])*(?:,\s*\w+)*)$")
POINTER_TO_FUNCTION = re.compile(r"^[\w*]+\s*\(\*(\w+)\)")


def _fields(lines: list[str], types: dict[str, type[Any]]) -> Iterator[tuple[str, type[Any]]]:
    for line in lines:
        if called := POINTER_TO_FUNCTION.match(line):
            yield called.group(1), ctypes.c_void_p
            continue
        match = FIELD.match(line)
        assert match, f"no field is declared like this: {line!r}"
        base, names = match.groups()
        for name in names.split(","):
            name = name.strip()
            if base.endswith("*") or name.startswith("*"):
                kind: type[Any] = ctypes.c_void_p
            else:
                kind = types[base]
            bare, *dimensions = re.split(r"[\[\]]+", name.strip("* ").rstrip("]"))
            for dimension in dimensions:
                kind = kind * int(dimension)
            yield bare, kind


def _deeper_than(depth: int) -> Callable[[str], bool]:
    return lambda line: len(line) - len(line.lstrip()) > depth


def load_records(*files: str) -> dict[str, type[Any]]:
    """Every structure that the given declaration files define, by name, as ctypes structures."""
    types = dict(SCALARS)
    for file in files:
        text = (SOURCE / file).read_text(encoding="utf-8")
        lines = [line for raw in text.splitlines() if (line := raw.split("#")[0].rstrip())]
        for i, line in enumerate(lines):
            if not (found := STRUCT.match(line)):
                continue
            depth = len(line) - len(line.lstrip())
            declared = [inner.strip() for inner in takewhile(_deeper_than(depth), lines[i + 1 :])]
            if declared != ["pass"]:
                name = found.group(1)
                types[name] = type(name, (ctypes.Structure,), {"_fields_": list(_fields(declared, types))})
    return types


RECORDS = load_records("paravirt/machine/cpu.pxd", "paravirt/hypervisor/records.pxd")
Host, Domain, Vcpu, Pcpu, Port, Frame = (
    RECORDS[name] for name in ("Host", "Domain", "Vcpu", "Pcpu", "Port", "Frame")
)
CpuOps, CpuExit = RECORDS["CpuOps"], RECORDS["CpuExit"]

_get_name = ctypes.pythonapi.PyCapsule_GetName
_get_name.restype, _get_name.argtypes = ctypes.c_char_p, [ctypes.py_object]
_get_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_get_pointer.restype, _get_pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]


def _c_type(text: str) -> type[Any] | None:
    """The ctypes type for one type of a C signature; mangled names end in the plain one."""
    text = text.replace("const", "").strip()
    if "*" in text:
        return ctypes.c_void_p
    if text == "void":
        return None
    for name, kind in SCALARS.items():
        if text == name or text.endswith(f"_{name}"):
            return kind
    return {"unsigned char": ctypes.c_uint8, "size_t": ctypes.c_size_t}[text]


def functions(module: str, package: str = "paravirt.hypervisor") -> Any:
    """The C functions that a compiled module shares, callable, as attributes."""
    table: dict[str, Any] = importlib.import_module(f"{package}.{module}").__pyx_capi__

    class Functions:
        def __getattr__(self, name: str) -> Callable[..., Any]:
            signature = _get_name(table[name])
            assert signature is not None
            match = re.fullmatch(r"(.*?)\s*\((.*)\)", signature.decode())
            assert match, f"{name} is no function: {signature!r}"
            answer, arguments = match.groups()
            kinds: list[Any] = [_c_type(part) for part in arguments.split(",") if part.strip() != "void"]
            prototype = ctypes.CFUNCTYPE(_c_type(answer), *kinds)
            call = prototype(_get_pointer(table[name], signature))
            setattr(self, name, call)
            return call

    return Functions()


def address(value: Any) -> int:
    """The address of a ctypes object."""
    return ctypes.addressof(value)


NEVER = (1 << 64) - 1


class Machine:
    """A hypervisor's record of one machine, with memory, domains and engines that only take notes.

    Args:
        frames: how much memory, in frames.
        pcpus: how many physical CPUs.
        virtual: a virtual clock, which the test moves by ``machine.host.virtual_ns``.

    Attributes:
        calls: what engines were asked: ("kick", number), ("deadline", number, ns), ("budget", number, n).
        translations: what they were asked to forget: (name of the operation, number, its arguments).
    """

    def __init__(self, frames: int = 64, pcpus: int = 1, *, virtual: bool = True) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.translations: list[tuple[Any, ...]] = []
        self.images: dict[int, bytes] = {}
        self.buffer = mmap.mmap(-1, frames * 4096)
        self.memory = (ctypes.c_uint8 * (frames * 4096)).from_buffer(self.buffer)
        self.frames = (Frame * frames)()
        self.domains = (ctypes.c_void_p * 16)()
        self.free_map = (ctypes.c_uint64 * (frames // 64 + 1))()
        self.clean_map = (ctypes.c_uint64 * (frames // 64 + 1))()
        self.pcpus = (ctypes.c_void_p * pcpus)()
        self.host = Host()
        self._keep: list[Any] = []
        self._next_frame = 1
        self.host.memory = address(self.memory)
        self.host.nr_frames = frames
        self.host.frames = address(self.frames)
        self.host.free_map = address(self.free_map)
        self.host.clean_map = address(self.clean_map)
        self.host.domains = address(self.domains)
        self.host.max_domains = 16
        self.host.pcpus = address(self.pcpus)
        self.host.nr_pcpus = pcpus
        self.host.service_fd = -1
        self.host.virtual_clock = virtual
        self.host.ns_per_block = 10
        self.ops = self._make_ops()
        self.cpus = []
        for number in range(pcpus):
            cpu = Pcpu()
            cpu.host = address(self.host)
            cpu.id = number
            cpu.ops = address(self.ops)
            cpu.engine = number + 1
            self.pcpus[number] = address(cpu)
            self.cpus.append(cpu)
        self.at = address(self.host)
        self.host.old = self.at + Host.spare.offset
        functions("timekeeping").calibrate(self.at)

    def _make_ops(self) -> Any:
        ops = CpuOps()
        notes: dict[str, tuple[list[Any], Callable[..., Any]]] = {
            "kick": ([None, ctypes.c_void_p], lambda engine: self.calls.append(("kick", engine))),
            "set_deadline": (
                [None, ctypes.c_void_p, ctypes.c_uint64],
                lambda engine, ns: self.calls.append(("deadline", engine, ns)),
            ),
            "set_budget": (
                [None, ctypes.c_void_p, ctypes.c_uint64],
                lambda engine, blocks: self.calls.append(("budget", engine, blocks)),
            ),
            "new_state": ([ctypes.c_void_p, ctypes.c_void_p], lambda engine: 1),
            "set_fxsave": (
                [None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p],
                lambda engine, cpu, image: self.images.__setitem__(cpu, ctypes.string_at(image, 512)),
            ),
        }
        one, two = [ctypes.c_uint64], [ctypes.c_uint64, ctypes.c_uint64]
        for name, wanted in (("flush_page", one), ("invalidate_code", two), ("release_table", one), ("flush_tlb", one)):
            notes[name] = (
                [None, ctypes.c_void_p, *wanted],
                lambda engine, *values, name=name: self.translations.append((name, engine, *values)),
            )
        notes["commit"] = ([None, ctypes.c_void_p], lambda engine: None)
        notes["store_pte"] = (
            [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint64],
            lambda engine, pte, old, value: self.store_entry(pte, old, value),
        )
        for name, (kinds, call) in notes.items():
            pointer = ctypes.CFUNCTYPE(*kinds)(call)
            self._keep.append(pointer)
            setattr(ops, name, ctypes.cast(pointer, ctypes.c_void_p).value)
        return ops

    def store_entry(self, pte: int, old: int, value: int) -> bool:
        """The engines' store_pte."""
        entry = ctypes.c_uint64.from_address(pte)
        if entry.value != old:
            return False
        entry.value = value
        return True

    def alloc(self, owner: int = 0x7FF2) -> int:
        """A zeroed frame: its number.  ``owner`` is a domain's number."""
        mfn = self._next_frame
        self._next_frame += 1
        assert mfn < self.host.nr_frames
        self.frames[mfn].owner = owner
        self.frames[mfn].refs = 1
        self.frames[mfn].flags = 1
        return mfn

    def read(self, at: int, size: int) -> bytes:
        """Bytes of the machine's memory."""
        return bytes(self.memory[at : at + size])

    def write(self, at: int, data: bytes) -> None:
        """Store into the machine's memory."""
        ctypes.memmove(self.host.memory + at, data, len(data))

    def words(self, mfn: int) -> Any:
        """A frame as 512 words."""
        return (ctypes.c_uint64 * 512).from_buffer(self.memory, mfn << 12)

    def close(self) -> None:
        """End the machine's domains."""
        scheduling = functions("scheduling")
        for domain in list(self._domains()):
            for vcpu in domain.vcpu:
                scheduling.remove_vcpu(vcpu.at)

    def _domains(self) -> Iterator[Guest]:
        return (kept for kept in self._keep if isinstance(kept, Guest))

    def keep(self, value: Any) -> Any:
        """Keep an object alive as long as the machine."""
        self._keep.append(value)
        return value


class GuestVcpu:
    """One vcpu of a :class:`Guest`: ``rec`` is its record, ``at`` where that is, ``info`` its vcpu_info."""

    def __init__(self, guest: Guest, number: int, info: int) -> None:
        self.rec = Vcpu()
        self.at = address(self.rec)
        self.guest = guest
        self.rec.domain = guest.at
        self.rec.id = number
        self.rec.info = info
        if info:
            ctypes.memset(info + 1, 1, 1)

    @property
    def info(self) -> Any:
        """The 64 bytes of vcpu_info, wherever they are now."""
        return (ctypes.c_uint8 * 64).from_address(self.rec.info)

    def take_event(self) -> bool:
        """Whether an event was pending; it is not any more."""
        pending = bool(self.info[0])
        self.info[0] = 0
        ctypes.memset(self.rec.info + 8, 0, 8)
        shared = self.guest.rec.shared_info
        ctypes.memset(shared + 2048, 0, 512)
        return pending


class Guest:
    """A domain: shared info, page tables that map all memory, one bound timer port for each vcpu."""

    def __init__(self, machine: Machine, domid: int = 1, vcpus: int = 1, *, running: bool = True) -> None:
        self.machine = machine
        self.rec = Domain()
        self.at = address(self.rec)
        self.rec.host = machine.at
        self.rec.domid = domid
        self.rec.nr_vcpus = vcpus
        self.shared_mfn = machine.alloc(domid)
        self.rec.shared_info_mfn = self.shared_mfn
        self.rec.shared_info = machine.host.memory + (self.shared_mfn << 12)
        self.ports = (Port * 64)()
        self.rec.ports = address(self.ports)
        self.rec.nr_ports = 64
        self.rec.max_ports = 4096
        scheduling = functions("scheduling")
        scheduling.init_domain(self.at)
        machine.domains[domid] = self.at
        machine.keep(self)
        self.table = self._map_all()
        self.pointers = (ctypes.c_void_p * vcpus)()
        self.rec.vcpus = address(self.pointers)
        self.vcpu = [GuestVcpu(self, i, self.rec.shared_info + 64 * i if i < 32 else 0) for i in range(vcpus)]
        for i, vcpu in enumerate(self.vcpu):
            self.pointers[i] = vcpu.at
            scheduling.init_vcpu(vcpu.at)
            vcpu.rec.kernel_table = self.table
            self.ports[i + 1].state = 5
            self.ports[i + 1].notify_vcpu = i
            vcpu.rec.virq_port[0] = i + 1
            if running:
                vcpu.rec.initialised = 1
                vcpu.rec.periodic_period = 0
                scheduling.vcpu_up(vcpu.at)

    def _map_all(self) -> int:
        """Page tables under which address n is byte n of the machine's memory: the L4's frame."""
        tables = [self.machine.alloc(self.rec.domid) for _ in range(4)]
        for upper, lower in pairwise(tables):
            self.machine.words(upper)[0] = (lower << 12) | 7
        entries = self.machine.words(tables[3])
        for mfn in range(self.machine.host.nr_frames):
            entries[mfn] = (mfn << 12) | 7
        return tables[0]

    def page(self) -> int:
        """A frame of the guest's: its address, for the guest and in the machine alike."""
        return self.machine.alloc(self.rec.domid) << 12

    def arguments(self, data: bytes) -> int:
        """Put the argument of a hypercall into the guest's memory: its address."""
        at = self.page()
        self.machine.write(at, data)
        return at


def call(function: Any, machine: Machine, vcpu: GuestVcpu, *args: int) -> int:
    """Make a hypercall by its handler: the answer."""
    words = (ctypes.c_uint64 * 6)(*[arg & NEVER for arg in args])
    return int(function(machine.at, vcpu.at, address(words)))


def destroy_ports(domain: int) -> None:
    """Close all ports of the domain whose record is there, as at its end."""
    host = Host.from_address(Domain.from_address(domain).host)
    host.work = 0
    while not functions("events").destroy_ports(domain):
        host.work = 0
