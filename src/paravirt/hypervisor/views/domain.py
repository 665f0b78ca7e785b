# cython: language_level=3, cdivision=True
# mypy: ignore-errors
"""One domain as a Python object: a thin handle on its record."""

import cython
import numpy as np
from cython.cimports.libc.stdint import uintptr_t
from cython.cimports.libc.stdlib import calloc, free
from cython.cimports.paravirt.abi.constants import EBUSY, EINVAL
from cython.cimports.paravirt.hypervisor import events as ev
from cython.cimports.paravirt.hypervisor.frames import (
    alloc_frame,
    assign_frame,
    claim,
    flush_all,
    flush_domain,
    get_page_and_type,
    give_back,
    put_page_and_type,
    release_allocation,
    steal_frame,
    unshare_frame,
)
from cython.cimports.paravirt.hypervisor.free_frames import find_extent
from cython.cimports.paravirt.hypervisor.guestmem import frame_ptr
from cython.cimports.paravirt.hypervisor.mmu import set_kernel_table
from cython.cimports.paravirt.hypervisor.msr import fill_hypercall_page
from cython.cimports.paravirt.hypervisor.promotion import leave_over, note_work, put_old_table, work_spent
from cython.cimports.paravirt.hypervisor.records import (
    FRAME_KEPT,
    FRAME_L4,
    FRAME_PARTIAL,
    FRAME_PINNED,
    FRAME_VALIDATED,
    FRAME_WRITABLE,
    FRAME_XEN,
    DomainPtr,
    FramePtr,
    HostPtr,
    PortServerPtr,
    VcpuPtr,
    i64,
    u32,
    u64,
)
from cython.cimports.paravirt.hypervisor.records import Domain as DomainRecord
from cython.cimports.paravirt.hypervisor.scheduling import (
    domain_pause,
    domain_pause_by_systemcontroller,
    domain_shutdown,
    domain_unpause,
    domain_unpause_by_systemcontroller,
    init_domain,
    vcpu_up,
)
from cython.cimports.paravirt.hypervisor.timekeeping import update_wallclock
from cython.cimports.paravirt.hypervisor.traps import set_flat
from cython.cimports.paravirt.hypervisor.views.vcpu import new_vcpu
from cython.cimports.paravirt.machine.cpu import GPR_RSI, GPR_RSP, U64Ptr

from paravirt.errors import HypervisorBug, UserError
from paravirt.hypervisor.hypercalls.grant_active import release_mappings
from paravirt.hypervisor.hypercalls.state import DomainState

NO_FRAME = 0xFFFFFFFFFFFFFFFF
MAX_PORTS = 1024
"""Event channels that a domain may have unless the toolstack says otherwise (xl's default: ports 1 to 1023)."""
MAPPINGS_AT_ONCE = 128
"""Mappings of grants that a domain's end gives back before the rest of the machine goes on."""


class Domain:
    """One domain: see :meth:`Host.create_domain`."""

    def _share_frame(self) -> u64:
        """A frame of the hypervisor's that the domain may map, not counted as its memory: its mfn.

        It has the type *writable* for good: its one use as such is the hypervisor's own.
        """
        mfn: u64 = alloc_frame(self.rec.host, self.rec.domid)
        frame: FramePtr
        if mfn == NO_FRAME:
            raise UserError("The machine has no free memory left.")
        frame = cython.address(self.rec.host.frames[mfn])
        frame.flags |= FRAME_XEN | FRAME_KEPT | FRAME_VALIDATED
        frame.type = FRAME_WRITABLE
        frame.type_refs = 1
        self.shared_frames.append(mfn)
        return mfn

    @property
    def domid(self) -> int:
        """Its number."""
        return self.rec.domid

    @property
    def is_privileged(self) -> bool:
        """Whether it may do what Domain 0 may."""
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
    def max_ports(self) -> int:
        """The first number that none of its event channels can have, unless its ABI allows fewer."""
        return self.rec.max_ports

    @max_ports.setter
    def max_ports(self, value: int) -> None:
        self.rec.max_ports = value

    @property
    def shared_info_mfn(self) -> int:
        """The frame of its shared info."""
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
        """The layout of its grant table: 1 or 2."""
        return self.rec.grant_version

    @grant_version.setter
    def grant_version(self, value: int) -> None:
        self.rec.grant_version = value

    @property
    def is_shut_down(self) -> bool:
        """Whether it has ended, or crashed, and its vcpus run no more."""
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
        """Whether it is being destroyed, or only what others hold of it is left."""
        return self.rec.dying != 0

    @property
    def crash_reason(self) -> str | None:
        """What the hypervisor crashed the domain for, or None."""
        reason: cython.p_char = cython.cast(cython.p_char, cython.cast(uintptr_t, self.rec.crash_reason))
        if reason == cython.NULL:
            return None
        return f"{cython.cast(bytes, reason).decode()} ({self.rec.crash_detail:#x})"

    def populate(self, most: int) -> bool:
        """Give a new domain the next frames of those that its p2m is for, ``most`` at a time: whether it has all then.

        Raises:
            UserError: the machine has no free memory left.
        """
        rec: DomainPtr = self.rec
        p2m: U64Ptr = cython.cast(U64Ptr, cython.cast(uintptr_t, self.p2m.ctypes.data))
        pages: u64 = len(self.p2m)
        end: u64 = min(pages, rec.tot_pages + cython.cast(u64, most))
        with cython.nogil:
            while rec.tot_pages < end and populate_one(rec, p2m):
                pass
        if rec.tot_pages < end:
            raise UserError("The machine has no free memory left.")
        return end == pages

    def share_frame(self) -> int:
        """A new frame of the hypervisor's that the domain may map (grant tables, ...): its mfn."""
        return self._share_frame()

    def unshare_frame(self, mfn: int) -> None:
        """The hypervisor uses a frame of :meth:`share_frame` no more: it is freed once nobody has it mapped."""
        self.shared_frames.remove(mfn)
        unshare_frame(self.rec.host, mfn, self.rec.domid)

    def steal_frame(self, mfn: int) -> bool:
        """Take a frame in no use away, with its contents: false if it is no such frame.

        It is nobody's until it is given on or put.
        """
        return steal_frame(self.rec.host, mfn, self.rec.domid)

    def assign_frame(self, mfn: int) -> None:
        """Make a stolen frame this domain's."""
        assign_frame(self.rec.host, mfn, self.rec.domid)

    def flush_tlb(self) -> None:
        """No engine has translations of the domain's when this returns."""
        flush_domain(self.rec)

    def alloc_extent(self, order: int, *, address_bits: int = 0, beyond_limit: bool = False) -> "int | None":
        """2**order contiguous, zeroed frames more for the domain, aligned to their number: the first mfn.

        Args:
            address_bits: every byte of them must have a machine address of at most so many bits; 0: anywhere.
            beyond_limit: the domain may go over its limit (it gives frames back at once).

        None: the domain's limit is reached, or the machine has no such extent.
        """
        host: HostPtr = self.rec.host
        count: u64 = cython.cast(u64, 1) << cython.cast(u32, order)
        end: u64 = host.nr_frames
        mfn: u64
        i: u64
        if not beyond_limit and self.rec.tot_pages + count > self.rec.max_pages:
            return None
        if address_bits and address_bits < 64 and end > (cython.cast(u64, 1) << cython.cast(u32, address_bits)) >> 12:
            end = (cython.cast(u64, 1) << cython.cast(u32, address_bits)) >> 12
        mfn = find_extent(host, order, end)
        if mfn == NO_FRAME:
            return None
        for i in range(count):
            claim(host, mfn + i, self.rec.domid)
        self.rec.tot_pages += count
        return mfn

    def set_pirq_eoi_map(self, mfn: int) -> int:
        """Keep a frame of the domain's as its map of interrupts that need an EOI: 0, -EINVAL, -EBUSY."""
        rc: i64 = get_page_and_type(self.rec.host, mfn, self.rec.domid, FRAME_WRITABLE)
        if rc != 0:
            return -EINVAL
        if self.pirq_eoi_mfn != NO_FRAME:
            put_page_and_type(self.rec.host, mfn)
            return -EBUSY
        self.pirq_eoi_mfn = mfn
        return 0

    def release_page(self, mfn: int) -> bool:
        """Drop the allocation of a frame: false if it is not the domain's, or has none."""
        return release_allocation(self.rec.host, mfn, self.rec.domid) != 0

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
        fill_hypercall_page(frame_ptr(self.rec.host, self.p2m[pfn]))

    def pin_l4(self, pfn: int) -> None:
        """Validate and pin an L4 table on the domain's behalf (BuildTarget).

        Raises:
            HypervisorBug: the table does not validate.
        """
        mfn: u64 = self.p2m[pfn]
        rc: i64 = get_page_and_type(self.rec.host, mfn, self.rec.domid, FRAME_L4)
        if rc != 0:
            raise HypervisorBug(f"the initial page tables do not validate: error {-rc}")
        self.rec.host.frames[mfn].flags |= FRAME_PINNED

    def set_context(self, *, rip: int, rsp: int, rsi: int, cr3_pfn: int) -> None:
        """The start-of-day state of vcpu 0 (BuildTarget)."""
        v: VcpuPtr = self.rec.vcpus[0]
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
        """Stop it, as the toolstack does; pauses nest.

        Raises:
            UserError: it is paused 255 times (-EOVERFLOW of XEN_DOMCTL_pausedomain).
        """
        if not domain_pause_by_systemcontroller(self.rec):
            raise UserError(f"The domain {self.name} is paused 255 times, and cannot be once more.")

    def unpause(self) -> bool:
        """Take back one pause of the toolstack's: false if there is none."""
        return domain_unpause_by_systemcontroller(self.rec) != 0

    def pause_internally(self) -> None:
        """Stop it for a purpose of our own: always possible, and no unpause of the toolstack's ends it."""
        domain_pause(self.rec)

    def unpause_internally(self) -> None:
        """Take back one :meth:`pause_internally`."""
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
        return ev.evtchn_send(self.rec.host, self.rec, port)

    def serve_port(self, port: int, server: int) -> None:
        """Have a :c:type:`PortServer` (records.pxd), by its address, answer events that guests send to this domain's
        port; Domain 0's only, and until the port is closed.  The port is a use of it."""
        self.rec.ports[cython.cast(u32, port)].server = cython.cast(
            PortServerPtr, cython.cast(cython.p_void, cython.cast(uintptr_t, server))
        )

    def close_port(self, port: int) -> None:
        """Close one of the domain's ports."""
        ev.close_port(self.rec, port)

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
        """End the domain and take back everything it has.  Its vcpus must be out of guest code.

        This object stays valid and says what the domain was; it has no vcpus any more. Frames that others have mapped
        through grants stay until they are unmapped; so long the domain is a zombie (:meth:`Host.reap`).
        """
        while not self.destroy_part():
            pass

    def destroy_part(self) -> bool:
        """The same for about half a millisecond: whether the domain is gone now.

        The caller gives up the machine lock between the parts, so that other domains are not held up by the end of a
        large one.
        """
        rec: DomainPtr = self.rec
        rec.host.work = 0
        if not rec.dying:
            self._begin_end()
        if not ev.destroy_ports(rec):
            note_work(rec.host)
            return False
        if not release_mappings(self, MAPPINGS_AT_ONCE):
            return False
        self._release_vcpus()
        rec.host.old = cython.address(rec.old)
        gone: cython.bint = self._rid_of_some()
        rec.host.old = cython.address(rec.host.spare)
        note_work(rec.host)
        if gone:
            for mfn in list(self.shared_frames):
                self.unshare_frame(mfn)
            rec.host.domains[rec.domid] = cython.NULL
            self.host.domains.pop(rec.domid, None)
            self.host.zombies[rec.domid] = self
            self.host.reap()
            self.console_sink = None
            self.destroyed = True
        return gone

    def _begin_end(self) -> cython.void:
        """Nothing of the domain's runs or is reached from outside any more."""
        rec: DomainPtr = self.rec
        rec.dying = 1
        if self.state.grants is not None:
            self.state.grants.close()
        rec.next_evtchn = 0  # of a reset that the guest had begun: it may have bound ports behind it

    def _release_vcpus(self) -> cython.void:
        """Give back what the vcpus hold, but for page tables."""
        rec: DomainPtr = self.rec
        for vcpu in self.vcpus:
            vcpu._release()
        # The objects free their records, and may outlive this: nothing leads from one to the other any more.
        self.vcpus = []
        rec.nr_vcpus = 0
        if self.pirq_eoi_mfn != NO_FRAME:
            put_page_and_type(rec.host, self.pirq_eoi_mfn)
            self.pirq_eoi_mfn = NO_FRAME

    def _rid_of_some(self) -> cython.bint:
        """Go through the frames three times (see _rid_of), and once more to give the host its memory back, as far as
        the time allows: whether that was all."""
        host: HostPtr = self.rec.host
        while self._rid_stage < 4:
            put_old_table(host, host.old)  # it stops only when the work is spent
            if work_spent(host):
                return False
            if self._rid_at < self.rec.first_mfn:
                self._rid_at = self.rec.first_mfn
            if self._rid_at >= self.rec.end_mfn:
                self._rid_at = 0
                self._rid_stage += 1
                if self._rid_stage == 2:
                    flush_all(host)
                continue
            if self._rid_stage == 3:
                self._rid_at = give_back(host, self._rid_at, self.rec.end_mfn)
                continue
            if host.frames[self._rid_at].owner == self.rec.domid:
                host.work += 4
                self._rid_of(self._rid_at)
            self._rid_at += 1
            host.work += 1
        return True

    def _rid_of(self, mfn: u64) -> cython.void:
        """One frame of the domain's: its pin, then what was left part way, then the allocation itself."""
        host: HostPtr = self.rec.host
        frame: FramePtr = cython.address(host.frames[mfn])
        if self._rid_stage == 2:
            release_allocation(host, mfn, self.rec.domid)
        elif self._rid_stage == 1:
            if frame.flags & FRAME_PARTIAL:
                frame.refs += 1
                leave_over(host, mfn, 0, True)
        elif frame.flags & FRAME_PINNED:
            frame.flags &= ~FRAME_PINNED
            leave_over(host, mfn, 0, False)

    def __dealloc__(self) -> None:
        # A domain that was not destroyed may be known to others by its record.
        if self.rec != cython.NULL and self.destroyed:
            free(self.rec.vcpus)
            free(self.rec)


def populate_one(rec: DomainPtr, p2m: U64Ptr) -> cython.bint:
    """The next frame of a new domain's: false when the machine has none left."""
    mfn: u64
    if rec.host.free_frames == 0:
        return False
    mfn = alloc_frame(rec.host, rec.domid)
    rec.host.m2p[mfn] = rec.tot_pages
    p2m[rec.tot_pages] = mfn
    rec.tot_pages += 1
    return True


def new_domain(host: object, host_rec: HostPtr, domid: u32, pages: u64, nr_vcpus: u32, name: str) -> Domain:
    """The record and the object of a new domain, which has no memory yet (:meth:`Domain.populate`).

    Raises:
        UserError: the engine has no room for so many vcpus; nothing of the domain is left.
    """
    domain: Domain = Domain.__new__(Domain)
    rec: DomainPtr = cython.cast(DomainPtr, calloc(1, cython.sizeof(DomainRecord)))
    i: u64
    if rec == cython.NULL:
        raise MemoryError
    domain.rec = rec
    domain.host = host
    domain.name = name
    domain.vcpus = []
    domain.shared_frames = []
    domain.state = DomainState()
    domain.pirq_eoi_mfn = NO_FRAME
    rec.host = host_rec
    rec.domid = domid
    rec.max_ports = MAX_PORTS
    rec.max_pages = pages
    rec.grant_version = 1
    init_domain(rec)
    host_rec.domains[domid] = rec
    domain.p2m = np.zeros(pages, dtype=np.uint64)
    if not pages:
        return domain
    domain_pause_by_systemcontroller(rec)  # until the toolstack has built it
    rec.shared_info_mfn = domain._share_frame()
    rec.shared_info = host_rec.memory + (rec.shared_info_mfn << 12)
    # Of every vcpu_info, whether there is such a vcpu or not.
    for i in range(32):
        rec.shared_info[i * 64 + 1] = 1
    rec.vcpus = cython.cast(cython.pointer(VcpuPtr), calloc(nr_vcpus, cython.sizeof(cython.p_void)))
    try:
        for i in range(nr_vcpus):
            domain.vcpus.append(new_vcpu(domain, rec, i))
            rec.nr_vcpus += 1
    except UserError:
        domain.destroy()
        raise
    update_wallclock(rec)
    return domain
