"""Per-vcpu operations, runstates, timers.

Public header: ``xen/vcpu.h`` (Xen 4.17).
"""

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
