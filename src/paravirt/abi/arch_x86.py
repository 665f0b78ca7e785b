"""Xen's public interface for 64-bit x86 guests: segments, address-space layout, vcpu contexts.

Public headers: ``xen/arch-x86/xen.h`` and ``xen/arch-x86/xen-x86_64.h`` (Xen 4.17).
"""

# Where the hypervisor's own descriptors begin in every GDT.
FIRST_RESERVED_GDT_PAGE = 14
FIRST_RESERVED_GDT_BYTE = 57344
FIRST_RESERVED_GDT_ENTRY = 7168

# Selectors of the flat segments that every GDT contains.
FLAT_RING3_CS32 = 0xe023
FLAT_RING3_CS64 = 0xe033
FLAT_RING3_DS32 = 0xe02b
FLAT_RING3_DS64 = 0x0
FLAT_RING3_SS32 = 0xe02b
FLAT_RING3_SS64 = 0xe02b

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
__HYPERVISOR_VIRT_START = 0xffff_8000_0000_0000
__HYPERVISOR_VIRT_END = 0xffff_8800_0000_0000
HYPERVISOR_VIRT_START = 0xffff_8000_0000_0000
HYPERVISOR_VIRT_END = 0xffff_8800_0000_0000

# The read-only machine-to-physical table inside it; the entries are 8 bytes each.
__MACH2PHYS_VIRT_START = 0xffff_8000_0000_0000
__MACH2PHYS_VIRT_END = 0xffff_8040_0000_0000
MACH2PHYS_VIRT_START = 0xffff_8000_0000_0000
MACH2PHYS_VIRT_END = 0xffff_8040_0000_0000
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
XEN_X86_MSR_RELAXED = 1
XEN_X86_MISC_FLAGS_MAX = XEN_X86_MSR_RELAXED

# CpuidLeaf.subleaf of a leaf without subleaves.
XEN_CPUID_NO_SUBLEAF = 0xffffffff

# I/O port of the debug console (HVM guests).
XEN_HVM_DEBUGCONS_IOPORT = 0xe9
