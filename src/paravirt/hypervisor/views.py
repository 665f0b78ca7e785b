# cython: language_level=3, cdivision=True
# mypy: ignore-errors
"""The hypervisor's records as Python objects: Host, Domain, Vcpu.

These are what the rare hypercalls, the control domain and the toolstack work with.  An object is a thin handle on
a C record (records.pxd); reading an attribute reads the record.  Everything except :meth:`Host.run` and the lock
itself must be used with the machine lock held (``with host.lock:``).
"""

import traceback

import cython
import numpy as np
from cython.cimports.libc.stdint import uintptr_t
from cython.cimports.libc.stdlib import calloc, free
from cython.cimports.libc.string import memset
from cython.cimports.paravirt.abi.constants import DOMID_INVALID, DOMID_IO, DOMID_XEN, EBUSY, EINVAL, ENOSYS
from cython.cimports.paravirt.hypervisor import events as ev
from cython.cimports.paravirt.hypervisor.debugreg import get_debug_register, set_debug_register
from cython.cimports.paravirt.hypervisor.frames import (
    alloc_frame,
    alloc_frames,
    claim,
    flush_all,
    get_page_and_type,
    put_page_and_type,
    release_allocation,
)
from cython.cimports.paravirt.hypervisor.guestmem import copy_from_guest, copy_to_guest, frame_ptr
from cython.cimports.paravirt.hypervisor.hypercalls.descriptor_tables import destroy_gdt, destroy_ldt
from cython.cimports.paravirt.hypervisor.hypercalls.native import register_native
from cython.cimports.paravirt.hypervisor.loop import init_cond, init_lock, run_pcpu
from cython.cimports.paravirt.hypervisor.mmu import set_kernel_table
from cython.cimports.paravirt.hypervisor.msr import fill_hypercall_page
from cython.cimports.paravirt.hypervisor.records import (
    FRAME_L4,
    FRAME_PINNED,
    FRAME_READONLY,
    FRAME_VALIDATED,
    FRAME_WRITABLE,
    FRAME_XEN,
    VPF_BLOCKED,
    VPF_DOWN,
    VPF_POLL,
    CallbackPtr,
    FramePtr,
    TrapEntryPtr,
    i64,
    pthread_cond_signal,
    pthread_mutex_lock,
    pthread_mutex_unlock,
    u8,
    u32,
    u64,
)
from cython.cimports.paravirt.hypervisor.records import (
    Domain as DomainRecord,
)
from cython.cimports.paravirt.hypervisor.records import (
    Frame as FrameRecord,
)
from cython.cimports.paravirt.hypervisor.records import (
    Host as HostRecord,
)
from cython.cimports.paravirt.hypervisor.records import (
    Pcpu as PcpuRecord,
)
from cython.cimports.paravirt.hypervisor.records import (
    Vcpu as VcpuRecord,
)
from cython.cimports.paravirt.hypervisor.scheduling import (
    domain_pause,
    domain_shutdown,
    domain_unpause,
    init_domain,
    init_vcpu,
    remove_vcpu,
    vcpu_kick,
    vcpu_up,
)
from cython.cimports.paravirt.hypervisor.timekeeping import (
    RunstateRecord,
    calibrate,
    get_runstate,
    now,
    update_wallclock,
)
from cython.cimports.paravirt.hypervisor.traps import set_flat
from cython.cimports.paravirt.hypervisor.views import (
    DomainRecPtr,
    HostRecPtr,
    PcpuRecPtr,
    VcpuRecPtr,
)
from cython.cimports.paravirt.machine.cpu import (
    GPR_R8,
    GPR_R9,
    GPR_R10,
    GPR_RDI,
    GPR_RDX,
    GPR_RSI,
    GPR_RSP,
    CpuOpsPtr,
    U64Ptr,
)

from paravirt.abi.errno import EFAULT
from paravirt.errors import HypervisorBug, UserError
from paravirt.hypervisor.hypercalls.registry import HypercallContinuation, HypercallError, handlers
from paravirt.hypervisor.hypercalls.state import DomainState

NO_FRAME = 0xFFFFFFFFFFFFFFFF
MAX_DOMAINS = 0x7FF0
MAX_PORTS = 1024
"""Event channels that a domain may have unless the toolstack says otherwise (xl's default: ports 1 to 1023)."""


class MachineLock:
    """The machine lock, as a context manager.  The interpreter's lock is given up while waiting for it."""

    def __enter__(self) -> "MachineLock":
        rec: HostRecPtr = self.rec
        with cython.nogil:
            pthread_mutex_lock(cython.address(rec.lock))
        return self

    def __exit__(self, *details: object) -> None:
        pthread_mutex_unlock(cython.address(self.rec.lock))


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
        rec: HostRecPtr = cython.cast(HostRecPtr, calloc(1, cython.sizeof(HostRecord)))
        mfn: u64
        if rec == cython.NULL:
            raise MemoryError
        self.rec = rec
        self.memory = memory
        self.engines = []
        self.domains = {}
        self.families = dict(handlers())
        init_lock(cython.address(rec.lock))
        rec.owner = cython.cast(cython.p_void, self)
        rec.memory = cython.cast(cython.p_uchar, address)
        rec.nr_frames = memory.frames
        rec.frames = cython.cast(FramePtr, calloc(memory.frames, cython.sizeof(FrameRecord)))
        rec.max_domains = MAX_DOMAINS
        rec.domains = cython.cast(
            cython.pointer(DomainRecPtr), calloc(MAX_DOMAINS, cython.sizeof(cython.p_void))
        )
        rec.pcpus = cython.cast(cython.pointer(PcpuRecPtr), calloc(64, cython.sizeof(cython.p_void)))
        if rec.frames == cython.NULL or rec.domains == cython.NULL or rec.pcpus == cython.NULL:
            raise MemoryError
        for mfn in range(rec.nr_frames):
            rec.frames[mfn].owner = DOMID_INVALID
        # Frame 0 stands for what is not memory: nobody may map it.
        rec.frames[0].owner = DOMID_IO
        rec.frames[0].refs = 1
        rec.free_frames = rec.nr_frames - 1
        rec.virtual_clock = virtual_clock
        rec.deterministic = virtual_clock
        rec.ns_per_block_num = 10
        rec.service_fd = service_fd
        rec.wall_offset_ns = wall_ns
        rec.service_step = run_service_step
        self.lock = MachineLock()
        self.lock.rec = rec
        self.lock.keeper = None
        for engine in engines:
            self._add_pcpu(engine)
        self._set_up_m2p()
        calibrate(rec)
        register_native(rec)
        for number in self.families:
            if rec.hypercalls[cython.cast(u32, number)] == cython.NULL:
                rec.hypercalls[cython.cast(u32, number)] = python_hypercall

    def _add_pcpu(self, engine: object) -> cython.void:
        pcpu: PcpuRecPtr = cython.cast(PcpuRecPtr, calloc(1, cython.sizeof(PcpuRecord)))
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
        """The machine-to-phys table, and the page tables that show it, read-only, in every guest's L4 slot 256."""
        rec: HostRecPtr = self.rec
        table_frames: u64 = (rec.nr_frames * 8 + 4095) // 4096
        l1_frames: u64 = (table_frames + 511) // 512
        first: u64 = alloc_frames(rec, DOMID_XEN, table_frames + l1_frames + 2)
        l2: u64 = first + table_frames + l1_frames
        entries: U64Ptr
        i: u64
        if first == NO_FRAME or l1_frames > 512:
            raise UserError("The machine's memory has no room for its own tables.")
        for i in range(first, l2 + 2):
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
        return self.rec.nr_pcpus

    @property
    def m2p_mfn(self) -> int:
        """The first frame of the machine-to-phys table; the others follow it."""
        return (cython.cast(uintptr_t, self.rec.m2p) - cython.cast(uintptr_t, self.rec.memory)) >> 12

    def now(self) -> int:
        """System time: ns since the machine's boot."""
        return now(self.rec)

    def m2p(self, mfn: int) -> int:
        """The pseudo-physical frame that a machine frame is to its owner (all ones: not known)."""
        return self.rec.m2p[cython.cast(u64, mfn)]

    def set_m2p(self, mfn: int, pfn: int) -> None:
        self.rec.m2p[cython.cast(u64, mfn)] = pfn & 0xFFFFFFFFFFFFFFFF

    def get_page_and_type(self, mfn: int, domid: int, type: int) -> int:
        """Take a reference to a domain's frame and a use of it as ``type``: 0 or -errno."""
        return get_page_and_type(self.rec, mfn, domid, type)

    def put_page_and_type(self, mfn: int) -> None:
        """Give both back."""
        put_page_and_type(self.rec, mfn)

    def frame_info(self, mfn: int) -> tuple[int, int, int, int, int]:
        """(owner, type, type references, references, flags) of a frame."""
        frame: FramePtr = cython.address(self.rec.frames[cython.cast(u64, mfn)])
        return frame.owner, frame.type, frame.type_refs, frame.refs, frame.flags

    def create_domain(self, domid: int, pages: int, nr_vcpus: int, *, name: str = "") -> "Domain":
        """A new domain with ``pages`` zeroed frames and ``nr_vcpus`` vcpus, all down; it is paused.

        Raises:
            UserError: the machine has not that much free memory.
        """
        domain: Domain = Domain(self, domid, pages, nr_vcpus, name)
        self.domains[domid] = domain
        return domain

    def create_service_domain(self) -> "Domain":
        """Domain 0: it has event channels, and Python instead of guest code."""
        domain: Domain = Domain(self, 0, 0, 0, "Domain-0")
        domain.rec.is_service = 1
        domain.rec.is_privileged = 1
        self.domains[0] = domain
        return domain

    def run(self, pcpu: int) -> None:
        """Run a physical CPU's loop in this thread until :meth:`stop`; the interpreter's lock is free meanwhile."""
        rec: PcpuRecPtr = self.rec.pcpus[cython.cast(u32, pcpu)]
        with cython.nogil:
            run_pcpu(rec)

    def stop(self) -> None:
        """Make every physical CPU leave its loop."""
        i: u32
        self.rec.stopping = 1
        for i in range(self.rec.nr_pcpus):
            pthread_cond_signal(cython.address(self.rec.pcpus[i].wake))
            self.rec.pcpus[i].ops.kick(self.rec.pcpus[i].engine)

    def invalidate_code(self, start: int, end: int) -> None:
        """The host wrote machine bytes [start, end): engines drop code translated from them."""
        i: u32
        for i in range(self.rec.nr_pcpus):
            self.rec.pcpus[i].ops.invalidate_code(self.rec.pcpus[i].engine, start, end)

    def take_service_events(self) -> list[int]:
        """Domain 0's pending event ports, which are no longer pending then."""
        zero: DomainRecPtr = self.rec.domains[0]
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
        """The records so far, 32 bytes each (trace.pxd), which are then forgotten."""
        taken = cython.cast(bytes, self.rec.trace_buffer[: self.rec.trace_count * 32]) if self.rec.trace_count else b""
        self.rec.trace_count = 0
        return taken

    def stats(self) -> dict:
        """Counters since boot; times are in ns."""
        s = cython.address(self.rec.stats)
        ticks: cython.double = ticks_to_ns(self.rec)
        return {
            "hypercalls": {
                i: (s.hypercall_count[i], s.hypercall_ns[i] * ticks)
                for i in range(64)
                if s.hypercall_count[i]
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
            "handler_ns": s.handler_ns * ticks,
            "idle_ns": s.idle_ns * ticks,
        }

    def __dealloc__(self) -> None:
        i: u32
        if self.rec != cython.NULL:
            for i in range(self.rec.nr_pcpus):
                free(self.rec.pcpus[i])
            free(self.rec.pcpus)
            free(self.rec.frames)
            free(self.rec.trace_buffer)
            free(self.rec.domains)
            free(self.rec)


class Domain:
    """One domain: see :meth:`Host.create_domain`."""

    def __init__(self, host: Host, domid: int, pages: int, nr_vcpus: int, name: str) -> None:
        rec: DomainRecPtr
        i: u32
        mfn: u64
        if pages > host.rec.free_frames - nr_vcpus - 64 if pages else False:
            raise UserError(
                f"The machine has {host.rec.free_frames * 4096 >> 20} MiB of free memory, "
                f"but the domain needs {pages * 4096 >> 20} MiB."
            )
        rec = cython.cast(DomainRecPtr, calloc(1, cython.sizeof(DomainRecord)))
        self.rec = rec
        self.host = host
        self.name = name
        self.vcpus = []
        self.state = DomainState()
        self.pirq_eoi_mfn = NO_FRAME
        rec.host = host.rec
        rec.domid = domid
        rec.max_ports = MAX_PORTS
        rec.max_pages = pages
        rec.nr_vcpus = nr_vcpus
        rec.grant_version = 1
        init_domain(rec)
        host.rec.domains[domid] = rec
        self.p2m = np.empty(pages, dtype=np.uint64)
        if not pages:
            return
        rec.paused = 1
        rec.shared_info_mfn = self._share_frame(True)
        rec.shared_info = host.rec.memory + (rec.shared_info_mfn << 12)
        # Of every vcpu_info, whether there is such a vcpu or not.
        for i in range(32):
            rec.shared_info[i * 64 + 1] = 1
        for i in range(pages):
            mfn = alloc_frame(host.rec, domid)
            if mfn == NO_FRAME:
                raise HypervisorBug("the free-frame count was wrong")
            host.rec.m2p[mfn] = i
            self.p2m[i] = mfn
        rec.tot_pages = pages
        rec.vcpus = cython.cast(cython.pointer(VcpuRecPtr), calloc(nr_vcpus, cython.sizeof(cython.p_void)))
        for i in range(nr_vcpus):
            self.vcpus.append(Vcpu(self, i))
        update_wallclock(rec)

    def _share_frame(self, writable: cython.bint) -> u64:
        """A frame of the hypervisor's that the domain may map, not counted as its memory: its mfn."""
        mfn: u64 = alloc_frame(self.host.rec, self.rec.domid)
        frame: FramePtr
        if mfn == NO_FRAME:
            raise UserError("The machine has no free memory left.")
        frame = cython.address(self.host.rec.frames[mfn])
        frame.flags |= FRAME_XEN | FRAME_VALIDATED | (0 if writable else FRAME_READONLY)
        frame.type = FRAME_WRITABLE if writable else 0
        frame.type_refs = 1 if writable else 0
        return mfn

    @property
    def domid(self) -> int:
        return self.rec.domid

    @property
    def is_privileged(self) -> bool:
        return self.rec.is_privileged != 0

    @property
    def tot_pages(self) -> int:
        """Frames that the domain owns."""
        return self.rec.tot_pages

    @property
    def max_pages(self) -> int:
        """Frames that it may own."""
        return self.rec.max_pages

    @max_pages.setter
    def max_pages(self, value: int) -> None:
        self.rec.max_pages = value

    @property
    def shared_info_mfn(self) -> int:
        return self.rec.shared_info_mfn

    @property
    def vm_assist(self) -> int:
        """Bit map of VMASST_TYPE_* that are on."""
        return self.rec.arch_vm_assist

    @vm_assist.setter
    def vm_assist(self, value: int) -> None:
        self.rec.arch_vm_assist = value

    @property
    def grant_version(self) -> int:
        return self.rec.grant_version

    @grant_version.setter
    def grant_version(self, value: int) -> None:
        self.rec.grant_version = value

    @property
    def is_shut_down(self) -> bool:
        return self.rec.is_shut_down != 0

    @property
    def shutdown_code(self) -> int:
        """SHUTDOWN_*; meaningful once the domain is shut down."""
        return self.rec.shutdown_code

    @property
    def is_paused(self) -> bool:
        """Whether the toolstack keeps it from running."""
        return self.rec.paused != 0

    @property
    def is_dying(self) -> bool:
        return self.rec.dying != 0

    @property
    def crash_reason(self) -> str | None:
        """What the hypervisor crashed the domain for, or None."""
        reason: cython.p_char = cython.cast(cython.p_char, cython.cast(uintptr_t, self.rec.crash_reason))
        if reason == cython.NULL:
            return None
        return f"{cython.cast(bytes, reason).decode()} ({self.rec.crash_detail:#x})"

    def share_frame(self, writable: bool = True) -> int:
        """A new frame of the hypervisor's that the domain may map (grant tables, ...): its mfn."""
        return self._share_frame(writable)

    def alloc_page(self) -> int | None:
        """One more frame for the domain: its mfn, or None when the domain or the machine has reached its limit."""
        mfn: u64
        if self.rec.tot_pages >= self.rec.max_pages:
            return None
        mfn = alloc_frame(self.host.rec, self.rec.domid)
        if mfn == NO_FRAME:
            return None
        self.rec.tot_pages += 1
        return mfn

    def alloc_extent(self, order: int, *, address_bits: int = 0, beyond_limit: bool = False) -> "int | None":
        """2**order contiguous, zeroed frames more for the domain, aligned to their number: the first mfn.

        Args:
            address_bits: every byte of them must have a machine address of at most so many bits; 0: anywhere.
            beyond_limit: the domain may go over its limit (it gives frames back at once).

        None: the domain's limit is reached, or the machine has no such extent.
        """
        host: HostRecPtr = self.host.rec
        count: u64 = cython.cast(u64, 1) << cython.cast(u32, order)
        end: u64 = host.nr_frames
        mfn: u64 = 0
        i: u64
        if not beyond_limit and self.rec.tot_pages + count > self.rec.max_pages:
            return None
        if count > host.free_frames:
            return None
        if address_bits and address_bits < 64 and end > (cython.cast(u64, 1) << cython.cast(u32, address_bits)) >> 12:
            end = (cython.cast(u64, 1) << cython.cast(u32, address_bits)) >> 12
        if count == 1 and end == host.nr_frames:
            mfn = alloc_frame(host, self.rec.domid)
            if mfn == NO_FRAME:
                return None
            self.rec.tot_pages += 1
            return mfn
        while mfn + count <= end:
            i = 0
            while i < count and host.frames[mfn + i].owner == DOMID_INVALID and host.frames[mfn + i].refs == 0:
                i += 1
            if i == count:
                for i in range(count):
                    claim(host, mfn + i, self.rec.domid)
                self.rec.tot_pages += count
                return mfn
            mfn += count
        return None

    def set_pirq_eoi_map(self, mfn: int) -> int:
        """Keep a frame of the domain's as its map of interrupts that need an EOI: 0, -EINVAL, -EBUSY."""
        rc: i64 = get_page_and_type(self.host.rec, mfn, self.rec.domid, FRAME_WRITABLE)
        if rc != 0:
            return -EINVAL
        if self.pirq_eoi_mfn != NO_FRAME:
            put_page_and_type(self.host.rec, mfn)
            return -EBUSY
        self.pirq_eoi_mfn = mfn
        return 0

    def release_page(self, mfn: int) -> bool:
        """Drop the allocation of a frame: false if it is not the domain's, or has none."""
        if not release_allocation(self.host.rec, mfn, self.rec.domid):
            return False
        return True

    def write(self, pfn: int, offset: int, data: bytes | memoryview) -> None:
        """Store ``data`` at byte ``offset`` from pseudo-physical frame ``pfn`` on (BuildTarget)."""
        view = memoryview(data).cast("B")
        address = (pfn << 12) + offset
        done = 0
        while done < len(view):
            frame, within = divmod(address + done, 4096)
            size = min(4096 - within, len(view) - done)
            mfn = int(self.p2m[frame])
            # A domain's frames are mostly consecutive: one copy for each run.
            while size < len(view) - done and int(self.p2m[frame + 1]) == int(self.p2m[frame]) + 1:
                frame += 1
                size = min(size + 4096, len(view) - done)
            self.host.memory.write((mfn << 12) + within, view[done : done + size])
            done += size

    def set_hypercall_page(self, pfn: int) -> None:
        """Fill a frame with the hypercall stubs, 32 bytes for each number (BuildTarget)."""
        fill_hypercall_page(frame_ptr(self.host.rec, self.p2m[pfn]))

    def pin_l4(self, pfn: int) -> None:
        """Validate and pin an L4 table on the domain's behalf (BuildTarget).

        Raises:
            HypervisorBug: the table does not validate.
        """
        mfn: u64 = self.p2m[pfn]
        rc: i64 = get_page_and_type(self.host.rec, mfn, self.rec.domid, FRAME_L4)
        if rc != 0:
            raise HypervisorBug(f"the initial page tables do not validate: error {-rc}")
        self.host.rec.frames[mfn].flags |= FRAME_PINNED

    def set_context(self, *, rip: int, rsp: int, rsi: int, cr3_pfn: int) -> None:
        """The start-of-day state of vcpu 0 (BuildTarget)."""
        v: VcpuRecPtr = self.rec.vcpus[0]
        v.cpu.rip = rip
        v.cpu.gpr[GPR_RSP] = rsp
        v.cpu.gpr[GPR_RSI] = rsi
        v.cpu.rflags = 0x202
        v.kernel_sp = rsp
        v.kernel_ss = 0xE02B
        for i in range(6):
            set_flat(v, i, 0, 0)
        set_flat(v, 1, 0xE033, 0x00A0FB00)
        set_flat(v, 2, 0xE02B, 0x00C0F300)
        if set_kernel_table(v, self.p2m[cr3_pfn]) != 0:
            raise HypervisorBug("the initial page table cannot be used")
        v.initialised = 1
        vcpu_up(v)

    def pause(self) -> None:
        domain_pause(self.rec)

    def unpause(self) -> None:
        domain_unpause(self.rec)

    def shutdown(self, reason: int) -> None:
        """Shut the domain down as if it had called SCHEDOP_shutdown."""
        domain_shutdown(self.rec, reason)

    def alloc_unbound(self, remote_domid: int) -> int:
        """A port of the domain's that ``remote_domid`` may bind to; negative: -errno."""
        return ev.alloc_unbound(self.rec, remote_domid)

    def bind_interdomain(self, remote_domid: int, remote_port: int) -> int:
        """Bind to another domain's unbound port: the local port; negative: -errno."""
        return ev.bind_interdomain(self.rec, remote_domid, remote_port)

    def notify(self, port: int) -> int:
        """Send an event through a port of this domain's."""
        return ev.evtchn_send(self.host.rec, self.rec, port)

    def send_virq(self, virq: int) -> None:
        """Send a virtual interrupt to vcpu 0 (VIRQ_DEBUG and the like)."""
        if self.rec.nr_vcpus:
            ev.send_virq(self.rec.vcpus[0], virq)

    def _stopped_on_cpu(self) -> bool:
        i: u32
        if self.rec.paused or self.rec.is_shut_down:
            for i in range(self.rec.nr_vcpus):
                if self.rec.vcpus[i].on_cpu or self.rec.vcpus[i].pcpu.current == self.rec.vcpus[i]:
                    if self.rec.vcpus[i].runstate == 0:
                        return True
        return False

    def console_write(self, data: bytes) -> None:
        """Bytes that the domain wrote to the emergency console (console_io)."""
        if self.console_sink is not None:
            self.console_sink(data)

    def destroy(self) -> None:
        """End the domain and take back everything it has.  Its vcpus must be out of guest code."""
        rec: DomainRecPtr = self.rec
        host: HostRecPtr = rec.host
        mfn: u64
        rec.dying = 1
        ev.destroy_all_ports(rec)
        for vcpu in self.vcpus:
            vcpu._release()
        if self.pirq_eoi_mfn != NO_FRAME:
            put_page_and_type(host, self.pirq_eoi_mfn)
            self.pirq_eoi_mfn = NO_FRAME
        for mfn in range(host.nr_frames):
            if host.frames[mfn].owner == rec.domid and host.frames[mfn].flags & FRAME_PINNED:
                host.frames[mfn].flags &= ~FRAME_PINNED
                put_page_and_type(host, mfn)
        flush_all(host)
        for mfn in range(host.nr_frames):
            if host.frames[mfn].owner == rec.domid:
                release_allocation(host, mfn, rec.domid)
        host.domains[rec.domid] = cython.NULL
        self.host.domains.pop(rec.domid, None)


class Vcpu:
    """One virtual CPU of a domain."""

    def __init__(self, domain: Domain, number: int) -> None:
        rec: VcpuRecPtr = cython.cast(VcpuRecPtr, calloc(1, cython.sizeof(VcpuRecord)))
        self.rec = rec
        self.domain = domain
        rec.domain = domain.rec
        rec.id = number
        rec.pcpu = domain.host.rec.pcpus[0]
        rec.cpu.engine_state = rec.pcpu.ops.new_state(rec.pcpu.engine)
        rec.cpu.rflags = 0x202
        rec.cpu.dr[6] = 0xFFFF0FF0
        rec.cpu.dr[7] = 0x400
        rec.cr4 = 0x620
        if rec.id < 32:  # the others have none until they register one
            rec.info = domain.rec.shared_info + rec.id * 64
            rec.info[1] = 1
        domain.rec.vcpus[rec.id] = rec
        init_vcpu(rec)

    @property
    def id(self) -> int:
        return self.rec.id

    @property
    def is_up(self) -> bool:
        """Whether it was initialised and not taken down."""
        return self.rec.initialised != 0 and not self.rec.pause_flags & VPF_DOWN

    @property
    def runstate(self) -> int:
        """RUNSTATE_*: running, runnable, blocked or offline."""
        return self.rec.runstate

    @property
    def is_blocked(self) -> bool:
        """Whether it waits for an event."""
        return self.rec.pause_flags & (VPF_BLOCKED | VPF_POLL) != 0

    @property
    def cpu_time(self) -> int:
        """ns that it has run so far."""
        record: RunstateRecord
        get_runstate(self.rec, cython.address(record))  # noqa: F821 - a C variable
        return record.time[0]  # noqa: F821

    @property
    def pcpu(self) -> int:
        """The physical CPU where it runs or last ran."""
        return self.rec.pcpu.id if self.rec.pcpu != cython.NULL else 0

    def send_nmi(self) -> None:
        """Have it take a non-maskable interrupt as soon as it can."""
        self.rec.nmi_pending = 1
        vcpu_kick(self.rec)

    @property
    def cr2(self) -> int:
        """The address of the last page fault that the guest was given."""
        return cython.cast(U64Ptr, self.rec.info + 16)[0] if self.rec.info != cython.NULL else 0

    def copy_from_guest(self, va: int, size: int) -> bytes:
        """``size`` bytes at guest address ``va``.

        Raises:
            HypercallError: EFAULT.
        """
        buffer = bytearray(size)
        view: cython.uchar[:] = buffer if size else bytearray(1)
        if size and copy_from_guest(self.rec, cython.address(view[0]), va & 0xFFFFFFFFFFFFFFFF, size) != 0:
            raise HypercallError(EFAULT)
        return bytes(buffer)

    def copy_to_guest(self, va: int, data: bytes) -> None:
        """Store ``data`` at guest address ``va``.

        Raises:
            HypercallError: EFAULT.
        """
        source: cython.p_const_uchar = data
        if data and copy_to_guest(self.rec, va & 0xFFFFFFFFFFFFFFFF, source, len(data)) != 0:
            raise HypercallError(EFAULT)

    def read_struct(self, va: int, layout: object) -> object:
        """A copy of the ctypes structure at guest address ``va``."""
        import ctypes

        return layout.from_buffer_copy(self.copy_from_guest(va, ctypes.sizeof(layout)))

    def write_struct(self, va: int, value: object) -> None:
        """Store a ctypes structure at guest address ``va``."""
        self.copy_to_guest(va, bytes(value))

    @property
    def iopl(self) -> int:
        """The I/O privilege level that the guest's kernel set: 0 to 3."""
        return self.rec.iopl

    @iopl.setter
    def iopl(self, value: int) -> None:
        self.rec.iopl = value & 3

    def set_io_bitmap(self, address: int, ports: int) -> None:
        """The bitmap of ports that the guest's processes may use: where it is, and for how many ports."""
        self.rec.iobmp = address & 0xFFFFFFFFFFFFFFFF
        self.rec.iobmp_limit = ports

    def set_trap(self, vector: int, cs: int, flags: int, address: int) -> None:
        """One entry of the trap table: flags as in trap_info (DPL in bits 0-1, bit 2: mask events)."""
        entry: TrapEntryPtr = cython.address(self.rec.traps[cython.cast(u8, vector)])
        entry.cs = cs & 0xFFFF
        entry.dpl = flags & 3
        entry.mask_events = (flags >> 2) & 1
        entry.address = address

    def get_trap(self, vector: int) -> tuple[int, int, int]:
        """(cs, flags, address) of one entry of the trap table."""
        entry: TrapEntryPtr = cython.address(self.rec.traps[cython.cast(u8, vector)])
        return entry.cs, entry.dpl | entry.mask_events << 2, entry.address

    def set_callback(self, type: int, address: int, flags: int) -> bool:
        """Register a callback (CALLBACKTYPE_*; flag bit 0: mask events), address 0: none.  False: no such type."""
        callback: CallbackPtr = self._callback(type)
        if callback == cython.NULL:
            return False
        callback.address = address
        callback.mask_events = flags & 1
        return True

    def _callback(self, type: cython.int) -> CallbackPtr:
        if type == 0:
            return cython.address(self.rec.event_callback)
        if type == 1:
            return cython.address(self.rec.failsafe_callback)
        if type == 2:
            return cython.address(self.rec.syscall_callback)
        if type == 4:
            return cython.address(self.rec.nmi_callback)
        if type == 5:
            return cython.address(self.rec.sysenter_callback)
        if type == 7:
            return cython.address(self.rec.syscall32_callback)
        return cython.NULL

    def set_debugreg(self, number: int, value: int) -> int:
        """Set a debug register: 0, or -EPERM, -EINVAL, -ENODEV."""
        return set_debug_register(self.rec, number & 0xFFFFFFFF, value)

    def get_debugreg(self, number: int) -> "int | None":
        """What a debug register holds; None: there is none of that number."""
        value: u64 = 0
        if get_debug_register(self.rec, number & 0xFFFFFFFF, cython.address(value)) != 0:
            return None
        return value

    @property
    def registers(self) -> dict:
        """The vcpu's registers by name, as its last exit left them."""
        names = (
            "rax",
            "rcx",
            "rdx",
            "rbx",
            "rsp",
            "rbp",
            "rsi",
            "rdi",
            "r8",
            "r9",
            "r10",
            "r11",
            "r12",
            "r13",
            "r14",
            "r15",
        )
        found = {name: self.rec.cpu.gpr[i] for i, name in enumerate(names)}
        found["rip"] = self.rec.cpu.rip
        found["rflags"] = self.rec.cpu.rflags
        found["cr3"] = self.rec.cpu.user_cr3 if self.rec.cpu.user else self.rec.cpu.kernel_cr3
        for i, name in enumerate(("es", "cs", "ss", "ds", "fs", "gs")):
            found[name] = self.rec.cpu.seg[i].selector
        found["fs_base"] = self.rec.cpu.seg[4].base
        found["gs_base"] = self.rec.cpu.seg[5].base
        found["user_mode"] = self.rec.cpu.user
        return found

    def _release(self) -> None:
        """Give back what the vcpu holds."""
        rec: VcpuRecPtr = self.rec
        host: HostRecPtr = rec.domain.host
        remove_vcpu(rec)
        if rec.kernel_table:
            put_page_and_type(host, rec.kernel_table)
        if rec.user_table:
            put_page_and_type(host, rec.user_table)
        rec.kernel_table = 0
        rec.user_table = 0
        destroy_gdt(rec)
        destroy_ldt(rec)
        if rec.info_mfn:
            rec.info = rec.domain.shared_info + rec.id * 64
            put_page_and_type(host, rec.info_mfn)
            rec.info_mfn = 0
        rec.pcpu.ops.free_state(rec.pcpu.engine, rec.cpu.engine_state)
        rec.cpu.engine_state = cython.NULL


def ticks_to_ns(rec: HostRecPtr) -> cython.double:
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


def call_family(host: HostRecPtr, v: VcpuRecPtr, args: U64Ptr) -> i64:
    """A hypercall whose handler is Python.  What it raises by mistake is our bug, and ends the calling domain."""
    owner: Host = cython.cast(Host, host.owner)
    domain: Domain = owner.domains[v.domain.domid]
    vcpu: Vcpu = domain.vcpus[v.id]
    host.stats.python_hypercalls += 1
    try:
        return owner.families[v.hypercall](vcpu, args[0], args[1], args[2], args[3], args[4], args[5])
    except HypercallError as error:
        return -error.errno
    except HypercallContinuation as more:
        return continue_hypercall(v, args, more.arguments)
    except Exception:  # noqa: BLE001 - shown as our bug
        traceback.print_exc()
        domain_shutdown(v.domain, 3)
        return -ENOSYS


def continue_hypercall(v: VcpuRecPtr, args: U64Ptr, arguments: tuple) -> i64:
    """Have the guest make the hypercall in progress again, with these arguments."""
    i: u32
    registers: tuple = (GPR_RDI, GPR_RSI, GPR_RDX, GPR_R10, GPR_R8, GPR_R9)
    for i in range(len(arguments)):
        args[i] = arguments[i]
        if not v.in_multicall:
            v.cpu.gpr[cython.cast(u32, registers[i])] = args[i]
    v.preempted = 1
    if not v.in_multicall:
        v.cpu.rip -= 2  # to the syscall instruction, with its number in rax again
    return v.hypercall


def python_hypercall(host: HostRecPtr, v: VcpuRecPtr, args: U64Ptr) -> i64:
    """From native code into a Python family."""
    with cython.gil:
        return call_family(host, v, args)


def run_service_step(host: HostRecPtr) -> cython.void:
    """Deterministic mode: Domain 0 runs now, on the machine's own thread."""
    with cython.gil:
        owner: Host = cython.cast(Host, host.owner)
        if owner.service_step is not None:
            owner.service_step()
