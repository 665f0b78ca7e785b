"""Xen's public interface for 64-bit x86 guests: segments, address-space layout, vcpu contexts.

Public headers: ``xen/arch-x86/xen.h`` and ``xen/arch-x86/xen-x86_64.h`` (Xen 4.17).
"""

from ctypes import LittleEndianStructure, c_uint8, c_uint16, c_uint32, c_uint64

# Where the hypervisor's own descriptors begin in every GDT.
FIRST_RESERVED_GDT_PAGE = 14
FIRST_RESERVED_GDT_BYTE = 57344
FIRST_RESERVED_GDT_ENTRY = 7168

# Selectors of the flat segments that every GDT contains.
FLAT_RING3_CS32 = 0xE023
FLAT_RING3_CS64 = 0xE033
FLAT_RING3_DS32 = 0xE02B
FLAT_RING3_DS64 = 0x0
FLAT_RING3_SS32 = 0xE02B
FLAT_RING3_SS64 = 0xE02B

# The same for guest kernels (which run in ring 3 too).
FLAT_KERNEL_DS64 = FLAT_RING3_DS64
FLAT_KERNEL_DS32 = FLAT_RING3_DS32
FLAT_KERNEL_DS = FLAT_KERNEL_DS64
FLAT_KERNEL_CS64 = FLAT_RING3_CS64
FLAT_KERNEL_CS32 = FLAT_RING3_CS32
FLAT_KERNEL_CS = FLAT_KERNEL_CS64
FLAT_KERNEL_SS64 = FLAT_RING3_SS64
FLAT_KERNEL_SS32 = FLAT_RING3_SS32
FLAT_KERNEL_SS = FLAT_KERNEL_SS64

# The same for guest user mode.
FLAT_USER_DS64 = FLAT_RING3_DS64
FLAT_USER_DS32 = FLAT_RING3_DS32
FLAT_USER_DS = FLAT_USER_DS64
FLAT_USER_CS64 = FLAT_RING3_CS64
FLAT_USER_CS32 = FLAT_RING3_CS32
FLAT_USER_CS = FLAT_USER_CS64
FLAT_USER_SS64 = FLAT_RING3_SS64
FLAT_USER_SS32 = FLAT_RING3_SS32
FLAT_USER_SS = FLAT_USER_SS64

# The address range reserved for the hypervisor.
__HYPERVISOR_VIRT_START = 0xFFFF_8000_0000_0000
__HYPERVISOR_VIRT_END = 0xFFFF_8800_0000_0000
HYPERVISOR_VIRT_START = 0xFFFF_8000_0000_0000
HYPERVISOR_VIRT_END = 0xFFFF_8800_0000_0000

# The read-only machine-to-physical table inside it; the entries are 8 bytes each.
__MACH2PHYS_VIRT_START = 0xFFFF_8000_0000_0000
__MACH2PHYS_VIRT_END = 0xFFFF_8040_0000_0000
MACH2PHYS_VIRT_START = 0xFFFF_8000_0000_0000
MACH2PHYS_VIRT_END = 0xFFFF_8040_0000_0000
MACH2PHYS_NR_ENTRIES = 0x8_0000_0000

# set_segment_base: which base.
SEGBASE_FS = 0
SEGBASE_GS_USER = 1
SEGBASE_GS_KERNEL = 2
SEGBASE_GS_USER_SEL = 3

# VcpuGuestContext.flags, and IretContext.flags (VGCF_in_syscall).
VGCF_I387_VALID = 1 << 0
VGCF_IN_KERNEL = 1 << 2
_VGCF_i387_valid = 0
VGCF_i387_valid = 1 << _VGCF_i387_valid
_VGCF_in_kernel = 2
VGCF_in_kernel = 1 << _VGCF_in_kernel
_VGCF_failsafe_disables_events = 3
VGCF_failsafe_disables_events = 1 << _VGCF_failsafe_disables_events
_VGCF_syscall_disables_events = 4
VGCF_syscall_disables_events = 1 << _VGCF_syscall_disables_events
_VGCF_online = 5
VGCF_online = 1 << _VGCF_online
_VGCF_in_syscall = 8
VGCF_in_syscall = 1 << _VGCF_in_syscall
VGCF_IN_SYSCALL = VGCF_in_syscall

# vcpus that have their VcpuInfo in the shared-info page.
XEN_LEGACY_MAX_VCPUS = 32

# What the interface offers on x86.
XEN_HAVE_PV_GUEST_ENTRY = 1
XEN_HAVE_PV_UPCALL_MASK = 1

# createdomain: emulated devices (all zero for a PV domain).
_XEN_X86_EMU_LAPIC = 0
XEN_X86_EMU_LAPIC = 1 << _XEN_X86_EMU_LAPIC
_XEN_X86_EMU_HPET = 1
XEN_X86_EMU_HPET = 1 << _XEN_X86_EMU_HPET
_XEN_X86_EMU_PM = 2
XEN_X86_EMU_PM = 1 << _XEN_X86_EMU_PM
_XEN_X86_EMU_RTC = 3
XEN_X86_EMU_RTC = 1 << _XEN_X86_EMU_RTC
_XEN_X86_EMU_IOAPIC = 4
XEN_X86_EMU_IOAPIC = 1 << _XEN_X86_EMU_IOAPIC
_XEN_X86_EMU_PIC = 5
XEN_X86_EMU_PIC = 1 << _XEN_X86_EMU_PIC
_XEN_X86_EMU_VGA = 6
XEN_X86_EMU_VGA = 1 << _XEN_X86_EMU_VGA
_XEN_X86_EMU_IOMMU = 7
XEN_X86_EMU_IOMMU = 1 << _XEN_X86_EMU_IOMMU
_XEN_X86_EMU_PIT = 8
XEN_X86_EMU_PIT = 1 << _XEN_X86_EMU_PIT
_XEN_X86_EMU_USE_PIRQ = 9
XEN_X86_EMU_USE_PIRQ = 1 << _XEN_X86_EMU_USE_PIRQ
_XEN_X86_EMU_VPCI = 10
XEN_X86_EMU_VPCI = 1 << _XEN_X86_EMU_VPCI
XEN_X86_EMU_ALL = 2047

# createdomain: other x86 flags.
XEN_X86_MSR_RELAXED = 1 << 0
XEN_X86_MISC_FLAGS_MAX = XEN_X86_MSR_RELAXED

# CpuidLeaf.subleaf of a leaf without subleaves.
XEN_CPUID_NO_SUBLEAF = 0xFFFFFFFF

# I/O port of the debug console (HVM guests).
XEN_HVM_DEBUGCONS_IOPORT = 0xE9


class TrapInfo(LittleEndianStructure):
    """One entry of the virtual IDT. `flags`: bits 1:0 privilege level, bit 2 masks events on entry."""

    _fields_ = [
        ("vector", c_uint8),
        ("flags", c_uint8),
        ("cs", c_uint16),
        ("address", c_uint64),
    ]


class CpuUserRegs(LittleEndianStructure):
    """The register block of a vcpu; `rflags.IF` is shown as the opposite of `saved_upcall_mask`."""

    _fields_ = [
        ("r15", c_uint64),
        ("r14", c_uint64),
        ("r13", c_uint64),
        ("r12", c_uint64),
        ("rbp", c_uint64),
        ("rbx", c_uint64),
        ("r11", c_uint64),
        ("r10", c_uint64),
        ("r9", c_uint64),
        ("r8", c_uint64),
        ("rax", c_uint64),
        ("rcx", c_uint64),
        ("rdx", c_uint64),
        ("rsi", c_uint64),
        ("rdi", c_uint64),
        ("error_code", c_uint32),
        ("entry_vector", c_uint32),
        ("rip", c_uint64),
        ("cs", c_uint16),
        ("_pad0", c_uint16 * 1),
        ("saved_upcall_mask", c_uint8),
        ("_pad1", c_uint8 * 3),
        ("rflags", c_uint64),
        ("rsp", c_uint64),
        ("ss", c_uint16),
        ("_pad2", c_uint16 * 3),
        ("es", c_uint16),
        ("_pad3", c_uint16 * 3),
        ("ds", c_uint16),
        ("_pad4", c_uint16 * 3),
        ("fs", c_uint16),
        ("_pad5", c_uint16 * 3),
        ("gs", c_uint16),
        ("_pad6", c_uint16 * 3),
    ]


class VcpuGuestContext(LittleEndianStructure):
    """What VCPUOP_initialise and setvcpucontext give a vcpu. `ctrlreg[1]` is the user page table."""

    _fields_ = [
        ("fpu_ctxt", c_uint8 * 512),
        ("flags", c_uint64),
        ("user_regs", CpuUserRegs),
        ("trap_ctxt", TrapInfo * 256),
        ("ldt_base", c_uint64),
        ("ldt_ents", c_uint64),
        ("gdt_frames", c_uint64 * 16),
        ("gdt_ents", c_uint64),
        ("kernel_ss", c_uint64),
        ("kernel_sp", c_uint64),
        ("ctrlreg", c_uint64 * 8),
        ("debugreg", c_uint64 * 8),
        ("event_callback_eip", c_uint64),
        ("failsafe_callback_eip", c_uint64),
        ("syscall_callback_eip", c_uint64),
        ("vm_assist", c_uint64),
        ("fs_base", c_uint64),
        ("gs_base_kernel", c_uint64),
        ("gs_base_user", c_uint64),
    ]


class IretContext(LittleEndianStructure):
    """What the iret hypercall finds at the guest kernel's stack pointer. `flags` is 0 or VGCF_in_syscall."""

    _fields_ = [
        ("rax", c_uint64),
        ("r11", c_uint64),
        ("rcx", c_uint64),
        ("flags", c_uint64),
        ("rip", c_uint64),
        ("cs", c_uint64),
        ("rflags", c_uint64),
        ("rsp", c_uint64),
        ("ss", c_uint64),
    ]


class ArchVcpuInfo(LittleEndianStructure):
    """The x86 part of VcpuInfo: the linear address of the last page fault."""

    _fields_ = [
        ("cr2", c_uint64),
        ("pad", c_uint64),
    ]


class ArchSharedInfo(LittleEndianStructure):
    """The x86 part of SharedInfo: the guest's pseudo-physical list, and the reason of an NMI."""

    _fields_ = [
        ("max_pfn", c_uint64),
        ("pfn_to_mfn_frame_list_list", c_uint64),
        ("nmi_reason", c_uint64),
        ("p2m_cr3", c_uint64),
        ("p2m_vaddr", c_uint64),
        ("p2m_generation", c_uint64),
    ]


class XenArchDomainconfig(LittleEndianStructure):
    """The x86 part of createdomain."""

    _fields_ = [
        ("emulation_flags", c_uint32),
        ("misc_flags", c_uint32),
    ]


class XenCpuidLeaf(LittleEndianStructure):
    """One CPUID leaf of a policy."""

    _fields_ = [
        ("leaf", c_uint32),
        ("subleaf", c_uint32),
        ("a", c_uint32),
        ("b", c_uint32),
        ("c", c_uint32),
        ("d", c_uint32),
    ]


class XenMsrEntry(LittleEndianStructure):
    """One MSR of a policy; `flags` must be zero."""

    _fields_ = [
        ("idx", c_uint32),
        ("flags", c_uint32),
        ("val", c_uint64),
    ]
