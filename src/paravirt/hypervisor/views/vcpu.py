# cython: language_level=3, cdivision=True
# mypy: ignore-errors
"""One vcpu as a Python object: a thin handle on its record."""

from ctypes import sizeof

import cython
from cython.cimports.cpython.bytes import PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cython.cimports.libc.stdlib import calloc, free
from cython.cimports.paravirt.hypervisor.debugreg import get_debug_register, set_debug_register
from cython.cimports.paravirt.hypervisor.frames import put_page_and_type
from cython.cimports.paravirt.hypervisor.guestmem import copy_from_guest, copy_to_guest
from cython.cimports.paravirt.hypervisor.hypercalls.descriptor_tables import destroy_gdt, destroy_ldt
from cython.cimports.paravirt.hypervisor.promotion import keep_as_pin, keep_old_as_pin
from cython.cimports.paravirt.hypervisor.records import (
    FRAME_L1,
    FRAME_L4,
    NO_HYPERCALL,
    REFUSED_FRAME,
    REFUSED_NOTHING,
    VPF_BLOCKED,
    VPF_DOWN,
    VPF_POLL,
    CallbackPtr,
    DomainPtr,
    HostPtr,
    RefusalPtr,
    TrapEntryPtr,
    VcpuPtr,
    u8,
    u32,
    u64,
)
from cython.cimports.paravirt.hypervisor.records import Frame as FrameRecord
from cython.cimports.paravirt.hypervisor.records import Vcpu as VcpuRecord
from cython.cimports.paravirt.hypervisor.refusals import note_refusal, refuse_frame
from cython.cimports.paravirt.hypervisor.scheduling import init_vcpu, remove_vcpu, vcpu_wake
from cython.cimports.paravirt.hypervisor.timekeeping import RunstateRecord, get_runstate, now
from cython.cimports.paravirt.machine.cpu import U64Ptr

from paravirt.abi.errno import EFAULT, EINVAL
from paravirt.errors import UserError
from paravirt.hypervisor.hypercalls.registry import HypercallError
from paravirt.hypervisor.refusal_report import Answer, Refusal


class Vcpu:
    """One virtual CPU of a domain."""

    @property
    def id(self) -> int:
        """Its number in its domain."""
        return self.rec.id

    @property
    def is_up(self) -> bool:
        """Whether it was let go, which takes that it was initialised, and not taken down."""
        return not self.rec.pause_flags & VPF_DOWN

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
        vcpu_wake(self.rec)

    @property
    def cr2(self) -> int:
        """The address of the last page fault that the guest was given."""
        return cython.cast(U64Ptr, self.rec.info + 16)[0] if self.rec.info != cython.NULL else 0

    def copy_from_guest(self, va: int, size: int) -> bytes:
        """``size`` bytes at guest address ``va``.

        Raises:
            HypercallError: EFAULT.
        """
        address: u64 = va & 0xFFFFFFFFFFFFFFFF
        copied: bytes = PyBytes_FromStringAndSize(cython.NULL, size)
        if size and copy_from_guest(self.rec, PyBytes_AS_STRING(copied), address, size) != 0:
            raise HypercallError(EFAULT)
        return copied

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
        return layout.from_buffer_copy(self.copy_from_guest(va, sizeof(layout)))

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

    @property
    def refusal(self) -> "Refusal | None":
        """The last request of the vcpu's that was refused; None: there was none."""
        noted: RefusalPtr = cython.address(self.rec.refused)
        host: HostPtr = self.rec.domain.host
        has_entry: cython.bint = REFUSED_NOTHING < noted.kind < REFUSED_FRAME
        has_frame: cython.bint = noted.kind == REFUSED_FRAME or FRAME_L1 <= noted.kind <= FRAME_L4
        if noted.how == 0:
            return None
        return Refusal(
            hypercall=None if noted.hypercall == NO_HYPERCALL else noted.hypercall,
            command=noted.command - 1 if noted.command else None,
            arguments=tuple([noted.args[i] for i in range(4)]),
            answer=noted.answer,
            how=Answer(noted.how),
            age=now(host) - noted.time,
            rip=noted.rip,
            kind=noted.kind if has_entry else None,
            at=noted.at,
            entry=noted.entry,
            table=frame_info(noted.table) if has_entry and noted.at >> 12 < host.nr_frames else None,
            mfn=noted.mfn if has_frame else None,
            frame=frame_info(noted.frame) if has_frame and noted.mfn < host.nr_frames else None,
        )

    def note_refusal(self, how: int, answer: int, arguments: tuple, mfn: "int | None" = None) -> None:
        """Keep that a part of the hypercall in progress was refused, where that is no error of the hypercall's own.

        Args:
            how: what ``answer`` is, an Answer.
            answer: what the guest got.
            arguments: up to four, as of a hypercall for this request alone.
            mfn: the frame that it cannot have, if it is about one.
        """
        args: u64[4]
        host: HostPtr = self.rec.domain.host
        for i in range(4):
            args[i] = arguments[i] if i < len(arguments) else 0  # noqa: F821 - a C variable
        if mfn is not None:
            refuse_frame(host, mfn, -EINVAL)
        note_refusal(host, self.rec, self.rec.hypercall, args, how, answer)  # noqa: F821 - a C variable

    def _release(self) -> None:
        """Give back what the vcpu holds; its page tables stay, pinned, for the end of the domain to go through."""
        rec: VcpuPtr = self.rec
        host: HostPtr = rec.domain.host
        remove_vcpu(rec)
        keep_old_as_pin(host, cython.address(rec.old))
        if rec.kernel_table:
            keep_as_pin(host, rec.kernel_table)
        if rec.user_table:
            keep_as_pin(host, rec.user_table)
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
        rec.info = cython.NULL
        rec.domain.vcpus[rec.id] = cython.NULL
        self.released = True

    def __dealloc__(self) -> None:
        # The record of one that was not released may be known to the scheduler.
        if self.rec != cython.NULL and self.released:
            free(self.rec)


def frame_info(frame: FrameRecord) -> tuple:
    """(owner, type, type references, references, flags) of a frame, as in ``Host.frame_info``."""
    return frame.owner, frame.type, frame.type_refs, frame.refs, frame.flags


def new_vcpu(domain: object, domain_rec: DomainPtr, number: u32) -> Vcpu:
    """The record and the object of a domain's vcpu, which is down."""
    vcpu: Vcpu = Vcpu.__new__(Vcpu)
    rec: VcpuPtr = cython.cast(VcpuPtr, calloc(1, cython.sizeof(VcpuRecord)))
    if rec == cython.NULL:
        raise MemoryError
    vcpu.rec = rec
    vcpu.domain = domain
    rec.domain = domain_rec
    rec.id = number
    rec.pcpu = domain_rec.host.pcpus[0]
    rec.cpu.space = domain_rec
    rec.cpu.number = number
    rec.cpu.engine_state = rec.pcpu.ops.new_state(rec.pcpu.engine, cython.address(rec.cpu))
    if rec.cpu.engine_state == cython.NULL:
        free(rec)
        vcpu.rec = cython.NULL
        raise UserError("The CPU engine has no room for another virtual CPU.")
    rec.cpu.rflags = 0x202
    rec.cpu.dr[6] = 0xFFFF0FF0
    rec.cpu.dr[7] = 0x400
    rec.cr4 = 0x620
    rec.xcr0 = 1
    if rec.id < 32:  # the others have none until they register one
        rec.info = domain_rec.shared_info + rec.id * 64
        rec.info[1] = 1
    domain_rec.vcpus[rec.id] = rec
    init_vcpu(rec)
    return vcpu
