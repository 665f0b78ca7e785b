# cython: language_level=3, cdivision=True
# mypy: ignore-errors
"""The hypervisor of one machine as a Python object: its lock, frames, physical CPUs and domains."""

import cython
from cython.cimports.libc.stdint import uintptr_t
from cython.cimports.libc.stdlib import calloc, free
from cython.cimports.libc.string import memmove, memset
from cython.cimports.paravirt.abi.constants import DOMID_INVALID, DOMID_IO, DOMID_XEN
from cython.cimports.paravirt.hypervisor.atomics import ORDERED, compare_exchange32, fetch_and32, fetch_or32
from cython.cimports.paravirt.hypervisor.cpuid_table import offer_native_state
from cython.cimports.paravirt.hypervisor.frames import (
    claim,
    drop_code,
    get_page,
    get_page_and_type,
    may_hold,
    put_page,
    put_page_and_type,
)
from cython.cimports.paravirt.hypervisor.free_frames import note_free, open_free_map
from cython.cimports.paravirt.hypervisor.hypercalls.families import python_hypercall
from cython.cimports.paravirt.hypervisor.hypercalls.native import register_native
from cython.cimports.paravirt.hypervisor.loop import init_cond, init_lock, run_pcpu
from cython.cimports.paravirt.hypervisor.promotion import work_spent
from cython.cimports.paravirt.hypervisor.records import (
    FRAME_READONLY,
    FRAME_XEN,
    MAX_PCPUS,
    DomainPtr,
    FramePtr,
    HostPtr,
    PcpuPtr,
    pthread_cond_signal,
    pthread_mutex_lock,
    pthread_mutex_trylock,
    pthread_mutex_unlock,
    u32,
    u64,
)
from cython.cimports.paravirt.hypervisor.records import Frame as FrameRecord
from cython.cimports.paravirt.hypervisor.records import Host as HostRecord
from cython.cimports.paravirt.hypervisor.records import Pcpu as PcpuRecord
from cython.cimports.paravirt.hypervisor.sched.units import end_sched
from cython.cimports.paravirt.hypervisor.timekeeping import calibrate, now
from cython.cimports.paravirt.hypervisor.trace import TraceRecord
from cython.cimports.paravirt.hypervisor.views.domain import Domain, new_domain
from cython.cimports.paravirt.machine.cpu import CpuOpsPtr, U16Ptr, U32Ptr, U64Ptr

from paravirt.errors import HypervisorBug, UserError
from paravirt.hypervisor.hypercalls.registry import handlers
from paravirt.machine.clock import NS_PER_BLOCK

MAX_DOMAINS = 0x7FF0


class MachineLock:
    """The machine lock, as a context manager.  The interpreter's lock is given up while waiting for it."""

    def __enter__(self) -> "MachineLock":
        rec: HostPtr = self.rec
        # Free, as a rule: then the interpreter's lock need not be given up, which costs as much again.
        if pthread_mutex_trylock(cython.address(rec.lock)) != 0:
            with cython.nogil:
                pthread_mutex_lock(cython.address(rec.lock))
        return self

    def __exit__(self, *details: object) -> None:
        pthread_mutex_unlock(cython.address(self.rec.lock))


class Quiesced:
    """While it is entered, no vcpu of a domain runs guest code: words that the guest changes stay as they are.

    Both are done with the machine lock held, and it is not given up in between.
    """

    def __enter__(self) -> "Quiesced":
        pcpu: PcpuPtr
        i: u32
        for i in range(self.rec.nr_pcpus):
            pcpu = self.rec.pcpus[i]
            if pcpu.ops.hold != cython.NULL and may_hold(pcpu, self.domain):
                self.held |= cython.cast(u64, 1) << i
                with cython.nogil:
                    pcpu.ops.hold(pcpu.engine)
        return self

    def __exit__(self, *details: object) -> None:
        i: u32
        for i in range(self.rec.nr_pcpus):
            if self.held >> i & 1:
                self.rec.pcpus[i].ops.unhold(self.rec.pcpus[i].engine)
        self.held = 0


class Host:
    """The hypervisor of one machine: its frames, physical CPUs and domains.

    Parameters:
        memory: the machine's memory.
        engines: one opened engine for each physical CPU.
        virtual_clock: time is what the engines count, not what the host's clock says (deterministic mode).
        wall_ns: the wall clock at boot, ns since 1970.
        service_fd: an eventfd that is written when Domain 0 has something to do; -1: none.
    """

    def __init__(
        self,
        memory: object,
        engines: list,
        *,
        virtual_clock: bool = False,
        wall_ns: int = 0,
        service_fd: int = -1,
    ) -> None:
        address: uintptr_t = memory.address
        rec: HostPtr = cython.cast(HostPtr, calloc(1, cython.sizeof(HostRecord)))
        mfn: u64
        if rec == cython.NULL:
            raise MemoryError
        self.rec = rec
        self.memory = memory
        self.engines = []
        self.domains = {}
        self.zombies = {}
        self.families = dict(handlers())
        init_lock(cython.address(rec.lock))
        rec.owner = cython.cast(cython.p_void, self)
        rec.memory = cython.cast(cython.p_uchar, address)
        rec.nr_frames = memory.frames
        rec.old = cython.address(rec.spare)
        rec.frames = cython.cast(FramePtr, calloc(memory.frames, cython.sizeof(FrameRecord)))
        rec.max_domains = MAX_DOMAINS
        rec.domains = cython.cast(cython.pointer(DomainPtr), calloc(MAX_DOMAINS, cython.sizeof(cython.p_void)))
        rec.pcpus = cython.cast(cython.pointer(PcpuPtr), calloc(MAX_PCPUS, cython.sizeof(cython.p_void)))
        if rec.frames == cython.NULL or rec.domains == cython.NULL or rec.pcpus == cython.NULL:
            raise MemoryError
        if not open_free_map(rec):
            raise MemoryError
        # Frame 0 stands for what is not memory: nobody may map it.
        rec.frames[0].owner = DOMID_IO
        rec.frames[0].refs = 1
        for mfn in range(1, rec.nr_frames):
            rec.frames[mfn].owner = DOMID_INVALID
            note_free(rec, mfn)
        rec.virtual_clock = virtual_clock
        rec.deterministic = virtual_clock
        rec.ns_per_block = NS_PER_BLOCK
        rec.service_fd = service_fd
        rec.wall_offset_ns = wall_ns
        rec.service_step = run_service_step
        self.lock = MachineLock()
        self.lock.rec = rec
        self.lock.keeper = None
        for engine in engines:
            self._add_pcpu(engine)
        self._set_up_m2p()
        self._reserve_slots()
        calibrate(rec)
        register_native(rec)
        for number in self.families:
            if rec.hypercalls[cython.cast(u32, number)] == cython.NULL:
                rec.hypercalls[cython.cast(u32, number)] = python_hypercall

    def _add_pcpu(self, engine: object) -> cython.void:
        pcpu: PcpuPtr = cython.cast(PcpuPtr, calloc(1, cython.sizeof(PcpuRecord)))
        ops: uintptr_t = engine.ops_address
        handle: uintptr_t = engine.handle
        pcpu.host = self.rec
        pcpu.id = self.rec.nr_pcpus
        pcpu.ops = cython.cast(CpuOpsPtr, ops)
        pcpu.engine = cython.cast(cython.p_void, handle)
        init_cond(cython.address(pcpu.wake))
        self.rec.pcpus[pcpu.id] = pcpu
        self.rec.nr_pcpus += 1
        self.engines.append(engine)

    def _set_up_m2p(self) -> cython.void:
        """The machine-to-phys table, and the page tables that show it, read-only, for a slot of every guest's L4."""
        rec: HostPtr = self.rec
        table_frames: u64 = (rec.nr_frames * 8 + 4095) // 4096
        l1_frames: u64 = (table_frames + 511) // 512
        first: u64 = 1
        l2: u64 = first + table_frames + l1_frames
        entries: U64Ptr
        i: u64
        # The least machine has room for them, and for the largest one that there can be one L2 is enough (Memory).
        for i in range(first, l2 + 2):
            claim(rec, i, DOMID_XEN)
            rec.frames[i].flags |= FRAME_XEN | FRAME_READONLY
        rec.m2p = cython.cast(U64Ptr, rec.memory + (first << 12))
        memset(rec.m2p, 0xFF, table_frames << 12)
        entries = cython.cast(U64Ptr, rec.memory + ((first + table_frames) << 12))
        for i in range(table_frames):
            entries[i] = ((first + i) << 12) | (cython.cast(u64, 1) << 63) | 0x25
        entries = cython.cast(U64Ptr, rec.memory + (l2 << 12))
        for i in range(l1_frames):
            entries[i] = ((first + table_frames + i) << 12) | 0x27
        cython.cast(U64Ptr, rec.memory + ((l2 + 1) << 12))[0] = (l2 << 12) | 0x27
        rec.m2p_l3_mfn = l2 + 1

    def _reserve_slots(self) -> cython.void:
        """What stands in the hypervisor's slots of every L4 table: the engine's own, and the machine-to-phys table."""
        pcpu: PcpuPtr = self.rec.pcpus[0]
        self.rec.m2p_index = 0 if self.engines[0].capabilities.honours_slot_256 else 1
        if pcpu.ops.reserved_entries != cython.NULL:
            pcpu.ops.reserved_entries(pcpu.engine, 0, self.rec.reserved_l4)
            pcpu.ops.reserved_entries(pcpu.engine, 1, self.rec.kernel_l4)

    @property
    def nr_frames(self) -> int:
        """Frames in the machine."""
        return self.rec.nr_frames

    @property
    def free_frames(self) -> int:
        """Frames that nobody owns."""
        return self.rec.free_frames

    @property
    def nr_pcpus(self) -> int:
        """How many physical CPUs the machine has."""
        return self.rec.nr_pcpus

    @property
    def m2p_mfn(self) -> int:
        """The first frame of the machine-to-phys table; the others follow it."""
        return (cython.cast(uintptr_t, self.rec.m2p) - cython.cast(uintptr_t, self.rec.memory)) >> 12

    @property
    def m2p_slot(self) -> int:
        """The slot of every L4 table that shows the machine-to-phys table to its guest."""
        return 256 + self.rec.m2p_index

    def offer_native_state(self, leaves: object) -> None:
        """Guests get XSAVE for what their processes see of the host's ``cpuid``: :attr:`Engine.native_leaves`."""
        offer_native_state(self.rec, leaves)

    @property
    def time_scale(self) -> tuple[int, int]:
        """Multiplier and shift by which guests turn ticks of the time-stamp counter into ns."""
        return self.rec.tsc_mul, self.rec.tsc_shift

    def now(self) -> int:
        """System time: ns since the machine's boot."""
        return now(self.rec)

    def m2p(self, mfn: int) -> int:
        """The pseudo-physical frame that a machine frame is to its owner (all ones: not known)."""
        return self.rec.m2p[cython.cast(u64, mfn)]

    def set_m2p(self, mfn: int, pfn: int) -> None:
        """Say in the machine-to-phys table by which number the owner of a frame knows it."""
        self.rec.m2p[cython.cast(u64, mfn)] = pfn & 0xFFFFFFFFFFFFFFFF

    def get_page_and_type(self, mfn: int, domid: int, type: int) -> int:
        """Take a reference to a domain's frame and a use of it as ``type``: 0 or -errno."""
        return get_page_and_type(self.rec, mfn, domid, type)

    def put_page_and_type(self, mfn: int) -> None:
        """Give both back."""
        put_page_and_type(self.rec, mfn)

    def get_page(self, mfn: int, domid: int) -> bool:
        """Take a reference to a domain's frame: false if it is not that domain's."""
        return get_page(self.rec, mfn & 0xFFFFFFFFFFFFFFFF, domid)

    def put_page(self, mfn: int) -> None:
        """Give it back."""
        put_page(self.rec, mfn)

    def quiesced(self, domain: Domain) -> Quiesced:
        """A context in which no vcpu of the domain runs guest code."""
        context: Quiesced = Quiesced.__new__(Quiesced)
        context.rec = self.rec
        context.domain = domain.rec
        context.keeper = self
        return context

    def compare_exchange(self, address: int, old: int, new: int) -> int:
        """Make the 32 bits at a machine address ``new`` if they are ``old``: what they were, in one step."""
        found: u32 = old
        compare_exchange32(
            cython.cast(U32Ptr, self.rec.memory + cython.cast(u64, address)),
            cython.address(found),
            new,
            False,
            ORDERED,
            ORDERED,
        )
        return found

    def spend(self, units: int) -> None:
        """Count work of the hypercall in progress, in looks at page-table entries: some ns each."""
        self.rec.work += cython.cast(u64, units)

    @property
    def is_spent(self) -> bool:
        """Whether the hypercall in progress has had its time, and should go on later with what is left."""
        return work_spent(self.rec)

    def read_number(self, address: int, size: int) -> int:
        """The 2, 4 or 8 bytes at a machine address in the machine's memory, which is a multiple of their number."""
        at: cython.p_uchar = self.rec.memory + cython.cast(u64, address)
        if size == 2:
            return cython.cast(U16Ptr, at)[0]
        return cython.cast(U32Ptr, at)[0] if size == 4 else cython.cast(U64Ptr, at)[0]

    def copy_memory(self, target: int, source: int, length: int) -> None:
        """Copy bytes from one machine address to another; both ranges are in the machine's memory."""
        to: u64 = target
        memmove(self.rec.memory + to, self.rec.memory + cython.cast(u64, source), cython.cast(u64, length))
        drop_code(self.rec, to, to + cython.cast(u64, length))

    def clear_bits(self, address: int, bits: int) -> None:
        """Clear bits of the 16 at an even machine address, in one step."""
        at: u64 = address
        shift: u32 = 16 if at & 2 else 0
        fetch_and32(
            cython.cast(U32Ptr, self.rec.memory + (at & ~cython.cast(u64, 3))),
            ~(cython.cast(u32, bits) << shift),
            ORDERED,
        )

    def set_bits(self, address: int, bits: int) -> None:
        """Set bits of the 16 at an even machine address, in one step."""
        at: u64 = address
        fetch_or32(
            cython.cast(U32Ptr, self.rec.memory + (at & ~cython.cast(u64, 3))),
            cython.cast(u32, bits) << (16 if at & 2 else 0),
            ORDERED,
        )

    def find(self, domid: int) -> "Domain | None":
        """A domain by its number, also one that has ended and of which others have frames mapped."""
        return self.domains.get(domid) or self.zombies.get(domid)

    def reap(self) -> None:
        """Forget ended domains whose last frame has been given back: their numbers are free again.

        One whose grants others still have handles for stays: a handle names its granter by number.
        """
        mfn: u64
        zombie: Domain
        for domid, zombie in list(self.zombies.items()):
            if zombie.state.grants is not None and zombie.state.grants.active:
                continue
            for mfn in range(zombie.rec.first_mfn, zombie.rec.end_mfn):
                if self.rec.frames[mfn].owner == zombie.rec.domid:
                    self.rec.work += (mfn - zombie.rec.first_mfn) // 8
                    break
            else:
                del self.zombies[domid]

    def owner_of(self, mfn: int) -> int:
        """Whose a frame of the machine's is: a domain's number, or DOMID_*."""
        return self.rec.frames[cython.cast(u64, mfn)].owner

    def frame_info(self, mfn: int) -> tuple[int, int, int, int, int]:
        """(owner, type, type references, references, flags) of a frame."""
        frame: FramePtr = cython.address(self.rec.frames[cython.cast(u64, mfn)])
        return frame.owner, frame.type, frame.type_refs, frame.refs, frame.flags

    def create_domain(
        self, domid: int, pages: int, nr_vcpus: int, *, name: str = "", populated: bool = True
    ) -> "Domain":
        """A new domain with ``pages`` zeroed frames and ``nr_vcpus`` vcpus, all down; it is paused.

        Unless it is to be ``populated`` it gets its frames by :meth:`Domain.populate`, in as many parts as the caller
        likes.

        Raises:
            UserError: the machine has not that much free memory, or its engine no room for so many virtual CPUs.
        """
        free_frames: u64 = self.rec.free_frames
        self.reap()
        if domid in self.zombies:
            raise HypervisorBug(f"domain number {domid} is that of a domain that has not quite ended")
        if pages and pages > free_frames - nr_vcpus - 64:
            raise UserError(
                f"The machine has {free_frames * 4096 >> 20} MiB of free memory, "
                f"but the domain needs {pages * 4096 >> 20} MiB."
            )
        domain: Domain = new_domain(self, self.rec, domid, pages, nr_vcpus, name)
        self.domains[domid] = domain
        if populated:
            domain.populate(pages)
        return domain

    def create_service_domain(self) -> "Domain":
        """Domain 0: it has event channels, and Python instead of guest code."""
        domain: Domain = new_domain(self, self.rec, 0, 0, 0, "Domain-0")
        domain.rec.is_service = 1
        domain.rec.is_privileged = 1
        self.domains[0] = domain
        return domain

    def run(self, pcpu: int) -> None:
        """Run a physical CPU's loop in this thread until :meth:`stop`; the interpreter's lock is free meanwhile."""
        rec: PcpuPtr = self.rec.pcpus[cython.cast(u32, pcpu)]
        with cython.nogil:
            run_pcpu(rec)

    def stop(self) -> None:
        """Make every physical CPU leave its loop."""
        i: u32
        with self.lock:
            self.rec.stopping = 1
            for i in range(self.rec.nr_pcpus):
                pthread_cond_signal(cython.address(self.rec.pcpus[i].wake))
                self.rec.pcpus[i].ops.kick(self.rec.pcpus[i].engine)

    def invalidate_code(self, start: int, end: int) -> None:
        """The host wrote machine bytes [start, end): engines drop code translated from them."""
        i: u32
        for i in range(self.rec.nr_pcpus):
            self.rec.pcpus[i].ops.invalidate_code(self.rec.pcpus[i].engine, start, end)

    def invalidate_ranges(self, ranges: object) -> None:
        """The same for several ranges, (start, end)."""
        i: u32
        start: u64
        end: u64
        for start, end in ranges:
            for i in range(self.rec.nr_pcpus):
                self.rec.pcpus[i].ops.invalidate_code(self.rec.pcpus[i].engine, start, end)

    def take_service_events(self) -> list[int]:
        """Domain 0's pending event ports, which are no longer pending then."""
        zero: DomainPtr = self.rec.domains[0]
        ports: list = []
        port: u32
        self.rec.service_pending = 0
        if zero != cython.NULL:
            for port in range(zero.nr_ports):
                if zero.ports[port].pending:
                    zero.ports[port].pending = 0
                    ports.append(port)
        return ports

    def any_paused_vcpu_on_cpu(self) -> bool:
        """Whether a vcpu of a paused or shut-down domain may still be running guest code."""
        return any([domain._stopped_on_cpu() for domain in self.domains.values()])  # noqa: C419 - compiled

    def set_tracing(self, on: bool) -> None:
        """Record every exit of every guest from now on, or no longer."""
        self.rec.trace_on = on

    def take_trace(self) -> bytes:
        """The records so far, 48 bytes each (trace.pxd), which are then forgotten."""
        size: u64 = self.rec.trace_count * cython.sizeof(TraceRecord)
        taken = cython.cast(bytes, self.rec.trace_buffer[:size]) if size else b""
        self.rec.trace_count = 0
        return taken

    def stats(self) -> dict:
        """Counters since boot; times are in ns."""
        s = cython.address(self.rec.stats)
        ticks: cython.double = ticks_to_ns(self.rec)
        return {
            "hypercalls": {
                i: (s.hypercall_count[i], s.hypercall_ns[i] * ticks) for i in range(64) if s.hypercall_count[i]
            },
            "traps": {i: (s.trap_count[i], s.trap_ns[i] * ticks) for i in range(32) if s.trap_count[i]},
            "exits": [s.exit_kinds[i] for i in range(9)],
            "system_calls": s.syscall_count,
            "page_table_writes": s.ptwr_count,
            "flushes": s.flush_count,
            "world_switches": s.world_switches,
            "engine_enters": s.engine_enters,
            "python_hypercalls": s.python_hypercalls,
            "engine_ns": s.engine_ns * ticks,
            "inside_ns": sum([getattr(engine, "inside_ticks", 0) for engine in self.engines]) * ticks,
            "handler_ns": s.handler_ns * ticks,
            "idle_ns": s.idle_ns * ticks,
            "errand_ns": s.errand_ns * ticks,
            "most_work": s.most_work,
            "most_handler_ns": s.most_handler_ns * ticks,
        }

    def __dealloc__(self) -> None:
        i: u32
        if self.rec != cython.NULL:
            end_sched(self.rec)
            for i in range(self.rec.nr_pcpus):
                free(self.rec.pcpus[i])
            free(self.rec.pcpus)
            free(self.rec.frames)
            free(self.rec.free_map)
            free(self.rec.clean_map)
            free(self.rec.trace_buffer)
            free(self.rec.domains)
            free(self.rec)


def ticks_to_ns(rec: HostPtr) -> cython.double:
    """Nanoseconds for each tick of the host's time-stamp counter."""
    scale: cython.double = rec.tsc_mul / 4294967296.0
    shift: cython.int = rec.tsc_shift
    if rec.virtual_clock:
        return 1.0
    while shift > 0:
        scale *= 2
        shift -= 1
    while shift < 0:
        scale /= 2
        shift += 1
    return scale


def run_service_step(host: HostPtr) -> cython.void:
    """Deterministic mode: Domain 0 runs now, on the machine's own thread."""
    with cython.gil:
        owner: Host = cython.cast(Host, host.owner)
        if owner.service_step is not None:
            owner.service_step()
