"""Operations for HVM guests (and get/set_param, which every domain may ask for).

Public header: ``xen/hvm/hvm_op.h`` (Xen 4.17).
"""

from ctypes import LittleEndianStructure, c_uint16, c_uint32, c_uint64

# hvm_op: sub-operations.
HVMOP_set_param = 0
HVMOP_get_param = 1
HVMOP_flush_tlbs = 5
HVMOP_pagetable_dying = 9
HVMOP_get_time = 10
HVMOP_xentrace = 11
HVMOP_set_mem_access = 12
HVMOP_get_mem_access = 13
HVMOP_get_mem_type = 15
HVMOP_set_evtchn_upcall_vector = 23
HVMOP_guest_request_vm_event = 24
HVMOP_altp2m = 25

# Must stand in the `version` of an altp2m request.
HVMOP_ALTP2M_INTERFACE_VERSION = 0x1

# HVMOP_altp2m: operations.
HVMOP_altp2m_get_domain_state = 1
HVMOP_altp2m_set_domain_state = 2
HVMOP_altp2m_vcpu_enable_notify = 3
HVMOP_altp2m_create_p2m = 4
HVMOP_altp2m_destroy_p2m = 5
HVMOP_altp2m_switch_p2m = 6
HVMOP_altp2m_set_mem_access = 7
HVMOP_altp2m_change_gfn = 8
HVMOP_altp2m_set_mem_access_multi = 9
HVMOP_altp2m_set_suppress_ve = 10
HVMOP_altp2m_get_suppress_ve = 11
HVMOP_altp2m_get_mem_access = 12
HVMOP_altp2m_vcpu_disable_notify = 13
HVMOP_altp2m_get_p2m_idx = 14
HVMOP_altp2m_set_suppress_ve_multi = 15
HVMOP_altp2m_set_visibility = 16

# create_ioreq_server: kinds of buffered ring.
HVM_IOREQSRV_BUFIOREQ_OFF = 0
HVM_IOREQSRV_BUFIOREQ_LEGACY = 1
HVM_IOREQSRV_BUFIOREQ_ATOMIC = 2

# HVMOP_get_mem_type: types.
HVMMEM_ram_rw = 0
HVMMEM_ram_ro = 1
HVMMEM_mmio_dm = 2
HVMMEM_unused = 3
HVMMEM_ioreq_server = 4


class XenHvmParam(LittleEndianStructure):
    """HVMOP_get_param and HVMOP_set_param."""

    _fields_ = [
        ("domid", c_uint16),
        ("pad", c_uint16),
        ("index", c_uint32),
        ("value", c_uint64),
    ]
