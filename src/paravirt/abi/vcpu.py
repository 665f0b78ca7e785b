"""Per-vcpu operations, runstates, timers.

Public header: ``xen/vcpu.h`` (Xen 4.17).
"""

from ctypes import LittleEndianStructure, c_int32, c_uint32, c_uint64

# vcpu_op: sub-operations.
VCPUOP_initialise = 0
VCPUOP_up = 1
VCPUOP_down = 2
VCPUOP_is_up = 3
VCPUOP_get_runstate_info = 4
VCPUOP_register_runstate_memory_area = 5
VCPUOP_set_periodic_timer = 6
VCPUOP_stop_periodic_timer = 7
VCPUOP_set_singleshot_timer = 8
VCPUOP_stop_singleshot_timer = 9
VCPUOP_register_vcpu_info = 10
VCPUOP_send_nmi = 11
VCPUOP_get_physid = 12
VCPUOP_register_vcpu_time_memory_area = 13

# VcpuRunstateInfo.state.
RUNSTATE_running = 0
RUNSTATE_runnable = 1
RUNSTATE_blocked = 2
RUNSTATE_offline = 3

# Set in VcpuRunstateInfo.state_entry_time while a record is being updated (VMASST_TYPE_runstate_update_flag).
XEN_RUNSTATE_UPDATE = 0x8000_0000_0000_0000

# VcpuSetSingleshotTimer.flags.
_VCPU_SSHOTTMR_future = 0
VCPU_SSHOTTMR_future = 1 << _VCPU_SSHOTTMR_future


class VcpuRunstateInfo(LittleEndianStructure):
    """VCPUOP_get_runstate_info; times in nanoseconds, by state."""

    _fields_ = [
        ("state", c_int32),
        ("state_entry_time", c_uint64),
        ("time", c_uint64 * 4),
    ]


class VcpuRegisterRunstateMemoryArea(LittleEndianStructure):
    """VCPUOP_register_runstate_memory_area; `addr` is a guest virtual address."""

    _fields_ = [
        ("addr", c_uint64),
    ]


class VcpuSetPeriodicTimer(LittleEndianStructure):
    """VCPUOP_set_periodic_timer."""

    _fields_ = [
        ("period_ns", c_uint64),
    ]


class VcpuSetSingleshotTimer(LittleEndianStructure):
    """VCPUOP_set_singleshot_timer; the timeout is an absolute system time."""

    _fields_ = [
        ("timeout_abs_ns", c_uint64),
        ("flags", c_uint32),
    ]


class VcpuRegisterVcpuInfo(LittleEndianStructure):
    """VCPUOP_register_vcpu_info; `offset` is in bytes within the frame."""

    _fields_ = [
        ("mfn", c_uint64),
        ("offset", c_uint32),
        ("rsvd", c_uint32),
    ]


class VcpuGetPhysid(LittleEndianStructure):
    """VCPUOP_get_physid: APIC id in bits 31:0, ACPI id in bits 63:32."""

    _fields_ = [
        ("phys_id", c_uint64),
    ]


class VcpuRegisterTimeMemoryArea(LittleEndianStructure):
    """VCPUOP_register_vcpu_time_memory_area; `addr` is a guest virtual address."""

    _fields_ = [
        ("addr", c_uint64),
    ]
