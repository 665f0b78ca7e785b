"""HVM parameters, the domain-wide values of HVMOP_get_param and HVMOP_set_param.

Public header: ``xen/hvm/params.h`` (Xen 4.17).
"""

# Indices (some are deprecated and refused by Xen).
HVM_PARAM_PAE_ENABLED = 4
HVM_PARAM_DM_DOMAIN = 13
HVM_PARAM_MEMORY_EVENT_CR0 = 20
HVM_PARAM_MEMORY_EVENT_CR3 = 21
HVM_PARAM_MEMORY_EVENT_CR4 = 22
HVM_PARAM_MEMORY_EVENT_INT3 = 23
HVM_PARAM_NESTEDHVM = 24
HVM_PARAM_MEMORY_EVENT_SINGLE_STEP = 25
HVM_PARAM_BUFIOREQ_EVTCHN = 26
HVM_PARAM_MEMORY_EVENT_MSR = 30
HVM_PARAM_CALLBACK_IRQ = 0
HVM_PARAM_STORE_PFN = 1
HVM_PARAM_STORE_EVTCHN = 2
HVM_PARAM_IOREQ_PFN = 5
HVM_PARAM_BUFIOREQ_PFN = 6
HVM_PARAM_VIRIDIAN = 9
HVM_PARAM_TIMER_MODE = 10
HVM_PARAM_HPET_ENABLED = 11
HVM_PARAM_IDENT_PT = 12
HVM_PARAM_ACPI_S_STATE = 14
HVM_PARAM_VM86_TSS = 15
HVM_PARAM_VPT_ALIGN = 16
HVM_PARAM_CONSOLE_PFN = 17
HVM_PARAM_CONSOLE_EVTCHN = 18
HVM_PARAM_ACPI_IOPORTS_LOCATION = 19
HVM_PARAM_PAGING_RING_PFN = 27
HVM_PARAM_MONITOR_RING_PFN = 28
HVM_PARAM_SHARING_RING_PFN = 29
HVM_PARAM_TRIPLE_FAULT_REASON = 31
HVM_PARAM_IOREQ_SERVER_PFN = 32
HVM_PARAM_NR_IOREQ_SERVER_PAGES = 33
HVM_PARAM_VM_GENERATION_ID_ADDR = 34
HVM_PARAM_ALTP2M = 35
HVM_PARAM_X87_FIP_WIDTH = 36
HVM_PARAM_VM86_TSS_SIZED = 37
HVM_PARAM_MCA_CAP = 38
HVM_NR_PARAMS = 39

# HVM_PARAM_CALLBACK_IRQ: kinds of callback.
HVM_PARAM_CALLBACK_IRQ_TYPE_MASK = 0xFF00_0000_0000_0000
HVM_PARAM_CALLBACK_TYPE_GSI = 0
HVM_PARAM_CALLBACK_TYPE_PCI_INTX = 1
HVM_PARAM_CALLBACK_TYPE_VECTOR = 2

# HVM_PARAM_VIRIDIAN: bits.
_HVMPV_base_freq = 0
HVMPV_base_freq = 1 << _HVMPV_base_freq
_HVMPV_no_freq = 1
HVMPV_no_freq = 1 << _HVMPV_no_freq
_HVMPV_time_ref_count = 2
HVMPV_time_ref_count = 1 << _HVMPV_time_ref_count
_HVMPV_reference_tsc = 3
HVMPV_reference_tsc = 1 << _HVMPV_reference_tsc
_HVMPV_hcall_remote_tlb_flush = 4
HVMPV_hcall_remote_tlb_flush = 1 << _HVMPV_hcall_remote_tlb_flush
_HVMPV_apic_assist = 5
HVMPV_apic_assist = 1 << _HVMPV_apic_assist
_HVMPV_crash_ctl = 6
HVMPV_crash_ctl = 1 << _HVMPV_crash_ctl
_HVMPV_synic = 7
HVMPV_synic = 1 << _HVMPV_synic
_HVMPV_stimer = 8
HVMPV_stimer = 1 << _HVMPV_stimer
_HVMPV_hcall_ipi = 9
HVMPV_hcall_ipi = 1 << _HVMPV_hcall_ipi
_HVMPV_ex_processor_masks = 10
HVMPV_ex_processor_masks = 1 << _HVMPV_ex_processor_masks
_HVMPV_no_vp_limit = 11
HVMPV_no_vp_limit = 1 << _HVMPV_no_vp_limit
_HVMPV_cpu_hotplug = 12
HVMPV_cpu_hotplug = 1 << _HVMPV_cpu_hotplug
HVMPV_feature_mask = 8191

# HVM_PARAM_TIMER_MODE: modes.
HVMPTM_delay_for_missed_ticks = 0
HVMPTM_no_delay_for_missed_ticks = 1
HVMPTM_no_missed_ticks_pending = 2
HVMPTM_one_missed_tick_pending = 3

# HVM_PARAM_ALTP2M: modes.
XEN_ALTP2M_disabled = 0
XEN_ALTP2M_mixed = 1
XEN_ALTP2M_external = 2
XEN_ALTP2M_limited = 3

# HVM_PARAM_MCA_CAP: bits.
XEN_HVM_MCA_CAP_LMCE = 1
XEN_HVM_MCA_CAP_MASK = XEN_HVM_MCA_CAP_LMCE
