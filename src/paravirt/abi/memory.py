"""Memory reservation and physmap operations.

Public header: ``xen/memory.h`` (Xen 4.17).
"""

from ctypes import LittleEndianStructure, LittleEndianUnion, c_uint8, c_uint16, c_uint32, c_uint64

from .physdev import PhysdevPciDevice

# memory_op: sub-operations (bits 5:0 of the command; above them Xen keeps the extent to continue with).
XENMEM_increase_reservation = 0
XENMEM_decrease_reservation = 1
XENMEM_populate_physmap = 6
XENMEM_exchange = 11
XENMEM_maximum_ram_page = 2
XENMEM_current_reservation = 3
XENMEM_maximum_reservation = 4
XENMEM_maximum_gpfn = 14
XENMEM_machphys_mfn_list = 5
XENMEM_machphys_compat_mfn_list = 25
XENMEM_machphys_mapping = 12
XENMEM_add_to_physmap = 7
XENMEM_add_to_physmap_batch = 23
XENMEM_remove_from_physmap = 15
XENMEM_memory_map = 9
XENMEM_machine_memory_map = 10
XENMEM_set_memory_map = 13
XENMEM_set_pod_target = 16
XENMEM_get_pod_target = 17
XENMEM_get_sharing_freed_pages = 18
XENMEM_get_sharing_shared_pages = 19
XENMEM_paging_op = 20
XENMEM_access_op = 21
XENMEM_sharing_op = 22
XENMEM_claim_pages = 24
XENMEM_reserved_device_memory_map = 27
XENMEM_acquire_resource = 28
XENMEM_get_vnumainfo = 26

# MemoryReservation.mem_flags; bits 7:0 hold the address width, bits 15:8 a node number plus one.
XENMEMF_populate_on_demand = 1 << 16
XENMEMF_exact_node_request = 1 << 17
XENMEMF_vnode = 1 << 18

# AddToPhysmap.space, and a flag in its idx.
XENMAPSPACE_shared_info = 0
XENMAPSPACE_grant_table = 1
XENMAPSPACE_gmfn = 2
XENMAPSPACE_gmfn_range = 3
XENMAPSPACE_gmfn_foreign = 4
XENMAPSPACE_dev_mmio = 5
XENMAPIDX_grant_table_status = 0x80000000

# XENMEM_paging_op: operations.
XENMEM_paging_op_nominate = 0
XENMEM_paging_op_evict = 1
XENMEM_paging_op_prep = 2

# XENMEM_access_op: operations.
XENMEM_access_op_set_access = 0
XENMEM_access_op_get_access = 1
XENMEM_access_op_set_access_multi = 4

# XENMEM_access_op: access types.
XENMEM_access_n = 0
XENMEM_access_r = 1
XENMEM_access_w = 2
XENMEM_access_rw = 3
XENMEM_access_x = 4
XENMEM_access_rx = 5
XENMEM_access_wx = 6
XENMEM_access_rwx = 7
XENMEM_access_rx2rw = 8
XENMEM_access_n2rwx = 9
XENMEM_access_default = 10

# XENMEM_sharing_op: operations.
XENMEM_sharing_op_nominate_gfn = 0
XENMEM_sharing_op_nominate_gref = 1
XENMEM_sharing_op_share = 2
XENMEM_sharing_op_debug_gfn = 3
XENMEM_sharing_op_debug_mfn = 4
XENMEM_sharing_op_debug_gref = 5
XENMEM_sharing_op_add_physmap = 6
XENMEM_sharing_op_audit = 7
XENMEM_sharing_op_range_share = 8
XENMEM_sharing_op_fork = 9
XENMEM_sharing_op_fork_reset = 10

# XENMEM_sharing_op: results and flags.
XENMEM_SHARING_OP_S_HANDLE_INVALID = -10
XENMEM_SHARING_OP_C_HANDLE_INVALID = -9
XENMEM_SHARING_OP_FIELD_IS_GREF_FLAG = 0x4000_0000_0000_0000
XENMEM_FORK_WITH_IOMMU_ALLOWED = 1 << 0
XENMEM_FORK_BLOCK_INTERRUPTS = 1 << 1
XENMEM_FORK_RESET_STATE = 1 << 2
XENMEM_FORK_RESET_MEMORY = 1 << 3

# XENMEM_reserved_device_memory_map: flags.
XENMEM_RDM_ALL = 1

# XENMEM_acquire_resource: types and identifiers.
XENMEM_resource_ioreq_server = 0
XENMEM_resource_grant_table = 1
XENMEM_resource_vmtrace_buf = 2
XENMEM_resource_grant_table_id_shared = 0
XENMEM_resource_grant_table_id_status = 1
XENMEM_resource_ioreq_server_frame_bufioreq = 0


class XenMemoryReservation(LittleEndianStructure):
    """increase_reservation, decrease_reservation, populate_physmap, claim_pages."""

    _fields_ = [
        ("extent_start", c_uint64),
        ("nr_extents", c_uint64),
        ("extent_order", c_uint32),
        ("mem_flags", c_uint32),
        ("domid", c_uint16),
    ]


class XenMemoryExchange(LittleEndianStructure):
    """XENMEM_exchange."""

    _fields_ = [
        ("in_", XenMemoryReservation),
        ("out", XenMemoryReservation),
        ("nr_exchanged", c_uint64),
    ]


class XenMemoryDomain(LittleEndianStructure):
    """A domain as an argument."""

    _fields_ = [
        ("domid", c_uint16),
    ]


class XenMachphysMfnList(LittleEndianStructure):
    """XENMEM_machphys_mfn_list."""

    _fields_ = [
        ("max_extents", c_uint32),
        ("extent_start", c_uint64),
        ("nr_extents", c_uint32),
    ]


class XenMachphysMapping(LittleEndianStructure):
    """XENMEM_machphys_mapping: virtual range of the table, and the highest frame in it."""

    _fields_ = [
        ("v_start", c_uint64),
        ("v_end", c_uint64),
        ("max_mfn", c_uint64),
    ]


class XenAddToPhysmap(LittleEndianStructure):
    """XENMEM_add_to_physmap."""

    _fields_ = [
        ("domid", c_uint16),
        ("size", c_uint16),
        ("space", c_uint32),
        ("idx", c_uint64),
        ("gpfn", c_uint64),
    ]


class _BatchExtra(LittleEndianUnion):
    """By space."""

    _fields_ = [
        ("foreign_domid", c_uint16),
        ("res0", c_uint16),
    ]


class XenAddToPhysmapBatch(LittleEndianStructure):
    """XENMEM_add_to_physmap_batch."""

    _fields_ = [
        ("domid", c_uint16),
        ("space", c_uint16),
        ("size", c_uint16),
        ("u", _BatchExtra),
        ("idxs", c_uint64),
        ("gpfns", c_uint64),
        ("errs", c_uint64),
    ]


class XenRemoveFromPhysmap(LittleEndianStructure):
    """XENMEM_remove_from_physmap."""

    _fields_ = [
        ("domid", c_uint16),
        ("gpfn", c_uint64),
    ]


class XenMemoryMap(LittleEndianStructure):
    """XENMEM_memory_map and XENMEM_machine_memory_map; the buffer holds 20-byte E820 entries."""

    _fields_ = [
        ("nr_entries", c_uint32),
        ("buffer", c_uint64),
    ]


class XenForeignMemoryMap(LittleEndianStructure):
    """XENMEM_set_memory_map."""

    _fields_ = [
        ("domid", c_uint16),
        ("map", XenMemoryMap),
    ]


class XenPodTarget(LittleEndianStructure):
    """XENMEM_set_pod_target and XENMEM_get_pod_target."""

    _fields_ = [
        ("target_pages", c_uint64),
        ("tot_pages", c_uint64),
        ("pod_cache_pages", c_uint64),
        ("pod_entries", c_uint64),
        ("domid", c_uint16),
    ]


class XenMemPagingOp(LittleEndianStructure):
    """XENMEM_paging_op."""

    _fields_ = [
        ("op", c_uint8),
        ("domain", c_uint16),
        ("buffer", c_uint64),
        ("gfn", c_uint64),
    ]


class XenMemAccessOp(LittleEndianStructure):
    """XENMEM_access_op."""

    _fields_ = [
        ("op", c_uint8),
        ("access", c_uint8),
        ("domid", c_uint16),
        ("nr", c_uint32),
        ("pfn", c_uint64),
        ("pfn_list", c_uint64),
        ("access_list", c_uint64),
    ]


class XenReservedDeviceMemory(LittleEndianStructure):
    """One range of XENMEM_reserved_device_memory_map."""

    _fields_ = [
        ("start_pfn", c_uint64),
        ("nr_pages", c_uint64),
    ]


class _RdmDevice(LittleEndianUnion):
    """The device."""

    _fields_ = [
        ("pci", PhysdevPciDevice),
    ]


class XenReservedDeviceMemoryMap(LittleEndianStructure):
    """XENMEM_reserved_device_memory_map."""

    _fields_ = [
        ("flags", c_uint32),
        ("nr_entries", c_uint32),
        ("buffer", c_uint64),
        ("dev", _RdmDevice),
    ]


class XenMemAcquireResource(LittleEndianStructure):
    """XENMEM_acquire_resource."""

    _fields_ = [
        ("domid", c_uint16),
        ("type", c_uint16),
        ("id", c_uint32),
        ("nr_frames", c_uint32),
        ("pad", c_uint32),
        ("frame", c_uint64),
        ("frame_list", c_uint64),
    ]


class XenVmemrange(LittleEndianStructure):
    """A range of a virtual NUMA node."""

    _fields_ = [
        ("start", c_uint64),
        ("end", c_uint64),
        ("flags", c_uint32),
        ("nid", c_uint32),
    ]


class _VnumaArray(LittleEndianUnion):
    """A guest address."""

    _fields_ = [
        ("h", c_uint64),
        ("pad", c_uint64),
    ]


class XenVnumaTopologyInfo(LittleEndianStructure):
    """XENMEM_get_vnumainfo."""

    _fields_ = [
        ("domid", c_uint16),
        ("pad", c_uint16),
        ("nr_vnodes", c_uint32),
        ("nr_vcpus", c_uint32),
        ("nr_vmemranges", c_uint32),
        ("vdistance", _VnumaArray),
        ("vcpu_to_vnode", _VnumaArray),
        ("vmemrange", _VnumaArray),
    ]
