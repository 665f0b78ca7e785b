"""Xen's core public interface: hypercall numbers, page-table requests, virtual interrupts, start of day.

Public header: ``xen/xen.h`` (Xen 4.17). Its x86 part is in :mod:`paravirt.abi.arch_x86`.

A name with two leading underscores cannot be written inside a class body (Python would mangle it):
there use :data:`HYPERCALLS`, or import it under another name.
"""

from collections.abc import Mapping
from ctypes import (
    LittleEndianStructure,
    LittleEndianUnion,
    c_char,
    c_int8,
    c_uint8,
    c_uint16,
    c_uint32,
    c_uint64,
)
from typing import Final

from . import arch_x86

# Hypercall numbers (%rax of `syscall`, or slot of the hypercall page).
__HYPERVISOR_set_trap_table = 0
__HYPERVISOR_mmu_update = 1
__HYPERVISOR_set_gdt = 2
__HYPERVISOR_stack_switch = 3
__HYPERVISOR_set_callbacks = 4
__HYPERVISOR_fpu_taskswitch = 5
__HYPERVISOR_sched_op_compat = 6
__HYPERVISOR_platform_op = 7
__HYPERVISOR_set_debugreg = 8
__HYPERVISOR_get_debugreg = 9
__HYPERVISOR_update_descriptor = 10
__HYPERVISOR_memory_op = 12
__HYPERVISOR_multicall = 13
__HYPERVISOR_update_va_mapping = 14
__HYPERVISOR_set_timer_op = 15
__HYPERVISOR_event_channel_op_compat = 16
__HYPERVISOR_xen_version = 17
__HYPERVISOR_console_io = 18
__HYPERVISOR_physdev_op_compat = 19
__HYPERVISOR_grant_table_op = 20
__HYPERVISOR_vm_assist = 21
__HYPERVISOR_update_va_mapping_otherdomain = 22
__HYPERVISOR_iret = 23
__HYPERVISOR_vcpu_op = 24
__HYPERVISOR_set_segment_base = 25
__HYPERVISOR_mmuext_op = 26
__HYPERVISOR_xsm_op = 27
__HYPERVISOR_nmi_op = 28
__HYPERVISOR_sched_op = 29
__HYPERVISOR_callback_op = 30
__HYPERVISOR_xenoprof_op = 31
__HYPERVISOR_event_channel_op = 32
__HYPERVISOR_physdev_op = 33
__HYPERVISOR_hvm_op = 34
__HYPERVISOR_sysctl = 35
__HYPERVISOR_domctl = 36
__HYPERVISOR_kexec_op = 37
__HYPERVISOR_tmem_op = 38
__HYPERVISOR_argo_op = 39
__HYPERVISOR_xenpmu_op = 40
__HYPERVISOR_dm_op = 41
__HYPERVISOR_hypfs_op = 42

# Architecture-specific hypercalls; x86 uses arch_0 (machine checks: xen-mca.h) and, inside Xen, arch_1.
__HYPERVISOR_arch_0 = 48
__HYPERVISOR_arch_1 = 49
__HYPERVISOR_arch_2 = 50
__HYPERVISOR_arch_3 = 51
__HYPERVISOR_arch_4 = 52
__HYPERVISOR_arch_5 = 53
__HYPERVISOR_arch_6 = 54
__HYPERVISOR_arch_7 = 55

# Virtual interrupts.
VIRQ_TIMER = 0
VIRQ_DEBUG = 1
VIRQ_CONSOLE = 2
VIRQ_DOM_EXC = 3
VIRQ_TBUF = 4
VIRQ_DEBUGGER = 6
VIRQ_XENOPROF = 7
VIRQ_CON_RING = 8
VIRQ_PCPU_STATE = 9
VIRQ_MEM_EVENT = 10
VIRQ_ARGO = 11
VIRQ_ENOMEM = 12
VIRQ_XENPMU = 13
VIRQ_ARCH_0 = 16
VIRQ_ARCH_1 = 17
VIRQ_ARCH_2 = 18
VIRQ_ARCH_3 = 19
VIRQ_ARCH_4 = 20
VIRQ_ARCH_5 = 21
VIRQ_ARCH_6 = 22
VIRQ_ARCH_7 = 23
NR_VIRQS = 24

# mmu_update: the command is in the two low bits of `ptr`.
MMU_NORMAL_PT_UPDATE = 0
MMU_MACHPHYS_UPDATE = 1
MMU_PT_UPDATE_PRESERVE_AD = 2
MMU_PT_UPDATE_NO_TRANSLATE = 3

# mmuext_op: `cmd`.
MMUEXT_PIN_L1_TABLE = 0
MMUEXT_PIN_L2_TABLE = 1
MMUEXT_PIN_L3_TABLE = 2
MMUEXT_PIN_L4_TABLE = 3
MMUEXT_UNPIN_TABLE = 4
MMUEXT_NEW_BASEPTR = 5
MMUEXT_TLB_FLUSH_LOCAL = 6
MMUEXT_INVLPG_LOCAL = 7
MMUEXT_TLB_FLUSH_MULTI = 8
MMUEXT_INVLPG_MULTI = 9
MMUEXT_TLB_FLUSH_ALL = 10
MMUEXT_INVLPG_ALL = 11
MMUEXT_FLUSH_CACHE = 12
MMUEXT_SET_LDT = 13
MMUEXT_NEW_USER_BASEPTR = 15
MMUEXT_CLEAR_PAGE = 16
MMUEXT_COPY_PAGE = 17
MMUEXT_FLUSH_CACHE_GLOBAL = 18
MMUEXT_MARK_SUPER = 19
MMUEXT_UNMARK_SUPER = 20

# update_va_mapping: flags; a pointer to a vcpu bitmap may be ORed in above them.
UVMF_NONE = 0
UVMF_TLB_FLUSH = 1
UVMF_INVLPG = 2
UVMF_FLUSHTYPE_MASK = 3
UVMF_MULTI = 0
UVMF_LOCAL = 0
UVMF_ALL = 4

# console_io: commands.
CONSOLEIO_write = 0
CONSOLEIO_read = 1

# vm_assist: commands.
VMASST_CMD_enable = 0
VMASST_CMD_disable = 1

# vm_assist: bit numbers in the vcpu context's `vm_assist`.
VMASST_TYPE_4gb_segments = 0
VMASST_TYPE_4gb_segments_notify = 1
VMASST_TYPE_writable_pagetables = 2
VMASST_TYPE_pae_extended_cr3 = 3
VMASST_TYPE_architectural_iopl = 4
VMASST_TYPE_runstate_update_flag = 5
VMASST_TYPE_m2p_strict = 32

# Reserved domain identifiers.
DOMID_FIRST_RESERVED = 0x7FF0
DOMID_SELF = 0x7FF0
DOMID_IO = 0x7FF1
DOMID_XEN = 0x7FF2
DOMID_COW = 0x7FF3
DOMID_INVALID = 0x7FF4
DOMID_IDLE = 0x7FFF
DOMID_MASK = 0x7FFF

# VcpuTimeInfo.flags.
XEN_PVCLOCK_TSC_STABLE_BIT = 1 << 0
XEN_PVCLOCK_GUEST_STOPPED = 1 << 1

# StartInfo.cmd_line, in bytes, terminator included.
MAX_GUEST_CMDLINE = 1024

# StartInfo.flags.
SIF_PRIVILEGED = 1 << 0
SIF_INITDOMAIN = 1 << 1
SIF_MULTIBOOT_MOD = 1 << 2
SIF_MOD_START_PFN = 1 << 3
SIF_VIRT_P2M_4TOOLS = 1 << 4
SIF_PM_MASK = 0xFF00

# Dom0VgaConsoleInfo.video_type.
XEN_VGATYPE_TEXT_MODE_3 = 0x3
XEN_VGATYPE_VESA_LFB = 0x23
XEN_VGATYPE_EFI_LFB = 0x70

#: Every hypercall by its name without the prefix, in the order of the header.
HYPERCALLS: Final[Mapping[str, int]] = {
    name.removeprefix("__HYPERVISOR_"): value
    for name, value in list(globals().items())
    if name.startswith("__HYPERVISOR_")
}


class MmuUpdate(LittleEndianStructure):
    """One request of mmu_update; `ptr` is a machine address with the command in bits 1:0."""

    _fields_ = [
        ("ptr", c_uint64),
        ("val", c_uint64),
    ]


class _MmuextArg1(LittleEndianUnion):
    """First argument, by command."""

    _fields_ = [
        ("mfn", c_uint64),
        ("linear_addr", c_uint64),
    ]


class _MmuextArg2(LittleEndianUnion):
    """Second argument, by command; `vcpumask` is a guest address."""

    _fields_ = [
        ("nr_ents", c_uint32),
        ("vcpumask", c_uint64),
        ("src_mfn", c_uint64),
    ]


class MmuextOp(LittleEndianStructure):
    """One request of mmuext_op."""

    _fields_ = [
        ("cmd", c_uint32),
        ("arg1", _MmuextArg1),
        ("arg2", _MmuextArg2),
    ]


class MulticallEntry(LittleEndianStructure):
    """One call of a multicall; `result` is written when it has run."""

    _fields_ = [
        ("op", c_uint64),
        ("result", c_uint64),
        ("args", c_uint64 * 6),
    ]


class VcpuTimeInfo(LittleEndianStructure):
    """Time record of a vcpu; `version` is odd while it is written. `system_time` in nanoseconds."""

    _fields_ = [
        ("version", c_uint32),
        ("pad0", c_uint32),
        ("tsc_timestamp", c_uint64),
        ("system_time", c_uint64),
        ("tsc_to_system_mul", c_uint32),
        ("tsc_shift", c_int8),
        ("flags", c_uint8),
        ("pad1", c_uint8 * 2),
    ]


class VcpuInfo(LittleEndianStructure):
    """What a vcpu shares with the hypervisor: event delivery, fault address, time (64 bytes)."""

    _fields_ = [
        ("evtchn_upcall_pending", c_uint8),
        ("evtchn_upcall_mask", c_uint8),
        ("evtchn_pending_sel", c_uint64),
        ("arch", arch_x86.ArchVcpuInfo),
        ("time", VcpuTimeInfo),
    ]


class SharedInfo(LittleEndianStructure):
    """The shared-info page: vcpus, event bits, wall clock (when system time was zero)."""

    _fields_ = [
        ("vcpu_info", VcpuInfo * arch_x86.XEN_LEGACY_MAX_VCPUS),
        ("evtchn_pending", c_uint64 * 64),
        ("evtchn_mask", c_uint64 * 64),
        ("wc_version", c_uint32),
        ("wc_sec", c_uint32),
        ("wc_nsec", c_uint32),
        ("wc_sec_hi", c_uint32),
        ("arch", arch_x86.ArchSharedInfo),
    ]


class _StartInfoConsoleDomU(LittleEndianStructure):
    """Console of an ordinary domain: its ring's machine frame and event channel."""

    _fields_ = [
        ("mfn", c_uint64),
        ("evtchn", c_uint32),
    ]


class _StartInfoConsoleDom0(LittleEndianStructure):
    """Console of domain 0: where in the page the video information is, and its size."""

    _fields_ = [
        ("info_off", c_uint32),
        ("info_size", c_uint32),
    ]


class _StartInfoConsole(LittleEndianUnion):
    """One or the other, by SIF_INITDOMAIN."""

    _fields_ = [
        ("domU", _StartInfoConsoleDomU),
        ("dom0", _StartInfoConsoleDom0),
    ]


class StartInfo(LittleEndianStructure):
    """The start-of-day page, whose virtual address a guest kernel gets in %rsi."""

    _fields_ = [
        ("magic", c_char * 32),
        ("nr_pages", c_uint64),
        ("shared_info", c_uint64),
        ("flags", c_uint32),
        ("store_mfn", c_uint64),
        ("store_evtchn", c_uint32),
        ("console", _StartInfoConsole),
        ("pt_base", c_uint64),
        ("nr_pt_frames", c_uint64),
        ("mfn_list", c_uint64),
        ("mod_start", c_uint64),
        ("mod_len", c_uint64),
        ("cmd_line", c_char * MAX_GUEST_CMDLINE),
        ("first_p2m_pfn", c_uint64),
        ("nr_p2m_frames", c_uint64),
    ]


class XenMultibootModList(LittleEndianStructure):
    """One module of a multiboot package (SIF_MULTIBOOT_MOD)."""

    _fields_ = [
        ("mod_start", c_uint32),
        ("mod_end", c_uint32),
        ("cmdline", c_uint32),
        ("pad", c_uint32),
    ]


class _VgaTextMode3(LittleEndianStructure):
    """A text screen, in characters; the font height in pixels."""

    _fields_ = [
        ("font_height", c_uint16),
        ("cursor_x", c_uint16),
        ("cursor_y", c_uint16),
        ("rows", c_uint16),
        ("columns", c_uint16),
    ]


class _VgaVesaLfb(LittleEndianStructure):
    """A linear frame buffer; sizes in pixels, `lfb_size` in units of 64 KiB."""

    _fields_ = [
        ("width", c_uint16),
        ("height", c_uint16),
        ("bytes_per_line", c_uint16),
        ("bits_per_pixel", c_uint16),
        ("lfb_base", c_uint32),
        ("lfb_size", c_uint32),
        ("red_pos", c_uint8),
        ("red_size", c_uint8),
        ("green_pos", c_uint8),
        ("green_size", c_uint8),
        ("blue_pos", c_uint8),
        ("blue_size", c_uint8),
        ("rsvd_pos", c_uint8),
        ("rsvd_size", c_uint8),
        ("gbl_caps", c_uint32),
        ("mode_attrs", c_uint16),
        ("pad", c_uint16),
        ("ext_lfb_base", c_uint32),
    ]


class _VgaMode(LittleEndianUnion):
    """By video_type."""

    _fields_ = [
        ("text_mode_3", _VgaTextMode3),
        ("vesa_lfb", _VgaVesaLfb),
    ]


class Dom0VgaConsoleInfo(LittleEndianStructure):
    """What domain 0 is told about the screen."""

    _fields_ = [
        ("video_type", c_uint8),
        ("u", _VgaMode),
    ]


class XenctlBitmap(LittleEndianStructure):
    """A bitmap in guest memory, for domctl and sysctl."""

    _fields_ = [
        ("bitmap", c_uint64),
        ("nr_bits", c_uint32),
    ]
