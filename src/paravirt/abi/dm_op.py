"""Operations for device models of HVM guests.

Public header: ``xen/hvm/dm_op.h`` (Xen 4.17).
"""

# dm_op: operations.
XEN_DMOP_create_ioreq_server = 1
XEN_DMOP_get_ioreq_server_info = 2
XEN_DMOP_map_io_range_to_ioreq_server = 3
XEN_DMOP_unmap_io_range_from_ioreq_server = 4
XEN_DMOP_set_ioreq_server_state = 5
XEN_DMOP_destroy_ioreq_server = 6
XEN_DMOP_track_dirty_vram = 7
XEN_DMOP_set_pci_intx_level = 8
XEN_DMOP_set_isa_irq_level = 9
XEN_DMOP_set_pci_link_route = 10
XEN_DMOP_modified_memory = 11
XEN_DMOP_set_mem_type = 12
XEN_DMOP_inject_event = 13
XEN_DMOP_inject_msi = 14
XEN_DMOP_map_mem_type_to_ioreq_server = 15
XEN_DMOP_remote_shutdown = 16
XEN_DMOP_relocate_memory = 17
XEN_DMOP_pin_memory_cacheattr = 18
XEN_DMOP_set_irq_level = 19
XEN_DMOP_nr_vcpus = 20

# map_io_range_to_ioreq_server: types.
XEN_DMOP_IO_RANGE_PORT = 0
XEN_DMOP_IO_RANGE_MEMORY = 1
XEN_DMOP_IO_RANGE_PCI = 2

# inject_event: types.
XEN_DMOP_EVENT_ext_int = 0
XEN_DMOP_EVENT_nmi = 2
XEN_DMOP_EVENT_hw_exc = 3
XEN_DMOP_EVENT_sw_int = 4
XEN_DMOP_EVENT_pri_sw_exc = 5
XEN_DMOP_EVENT_sw_exc = 6
