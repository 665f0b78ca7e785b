"""Control of the machine (for a privileged domain): operation numbers.

Public header: ``xen/sysctl.h`` (Xen 4.17).
"""

# Must stand in the `interface_version` of every request.
XEN_SYSCTL_INTERFACE_VERSION = 0x15

# sysctl: operations.
XEN_SYSCTL_readconsole = 1
XEN_SYSCTL_tbuf_op = 2
XEN_SYSCTL_physinfo = 3
XEN_SYSCTL_sched_id = 4
XEN_SYSCTL_perfc_op = 5
XEN_SYSCTL_getdomaininfolist = 6
XEN_SYSCTL_debug_keys = 7
XEN_SYSCTL_getcpuinfo = 8
XEN_SYSCTL_availheap = 9
XEN_SYSCTL_get_pmstat = 10
XEN_SYSCTL_cpu_hotplug = 11
XEN_SYSCTL_pm_op = 12
XEN_SYSCTL_page_offline_op = 14
XEN_SYSCTL_lockprof_op = 15
XEN_SYSCTL_cputopoinfo = 16
XEN_SYSCTL_numainfo = 17
XEN_SYSCTL_cpupool_op = 18
XEN_SYSCTL_scheduler_op = 19
XEN_SYSCTL_coverage_op = 20
XEN_SYSCTL_psr_cmt_op = 21
XEN_SYSCTL_pcitopoinfo = 22
XEN_SYSCTL_psr_alloc = 23
XEN_SYSCTL_get_cpu_levelling_caps = 25
XEN_SYSCTL_get_cpu_featureset = 26
XEN_SYSCTL_livepatch_op = 27
XEN_SYSCTL_get_cpu_policy = 29

# tbuf_op: operations.
XEN_SYSCTL_TBUFOP_get_info = 0
XEN_SYSCTL_TBUFOP_set_cpu_mask = 1
XEN_SYSCTL_TBUFOP_set_evt_mask = 2
XEN_SYSCTL_TBUFOP_set_size = 3
XEN_SYSCTL_TBUFOP_enable = 4
XEN_SYSCTL_TBUFOP_disable = 5

# physinfo: capabilities.
_XEN_SYSCTL_PHYSCAP_hvm = 0
XEN_SYSCTL_PHYSCAP_hvm = 1 << _XEN_SYSCTL_PHYSCAP_hvm
_XEN_SYSCTL_PHYSCAP_pv = 1
XEN_SYSCTL_PHYSCAP_pv = 1 << _XEN_SYSCTL_PHYSCAP_pv
_XEN_SYSCTL_PHYSCAP_directio = 2
XEN_SYSCTL_PHYSCAP_directio = 1 << _XEN_SYSCTL_PHYSCAP_directio
_XEN_SYSCTL_PHYSCAP_hap = 3
XEN_SYSCTL_PHYSCAP_hap = 1 << _XEN_SYSCTL_PHYSCAP_hap
_XEN_SYSCTL_PHYSCAP_shadow = 4
XEN_SYSCTL_PHYSCAP_shadow = 1 << _XEN_SYSCTL_PHYSCAP_shadow
_XEN_SYSCTL_PHYSCAP_iommu_hap_pt_share = 5
XEN_SYSCTL_PHYSCAP_iommu_hap_pt_share = 1 << _XEN_SYSCTL_PHYSCAP_iommu_hap_pt_share
XEN_SYSCTL_PHYSCAP_vmtrace = 1 << 6
XEN_SYSCTL_PHYSCAP_vpmu = 1 << 7
XEN_SYSCTL_PHYSCAP_gnttab_v1 = 1 << 8
XEN_SYSCTL_PHYSCAP_gnttab_v2 = 1 << 9
XEN_SYSCTL_PHYSCAP_MAX = XEN_SYSCTL_PHYSCAP_gnttab_v2

# perfc_op: operations.
XEN_SYSCTL_PERFCOP_reset = 1
XEN_SYSCTL_PERFCOP_query = 2

# get_pmstat: operations.
PMSTAT_CATEGORY_MASK = 0xF0
PMSTAT_PX = 0x10
PMSTAT_CX = 0x20
PMSTAT_get_max_px = 0x11
PMSTAT_get_pxstat = 0x12
PMSTAT_reset_pxstat = 0x13
PMSTAT_get_max_cx = 0x21
PMSTAT_get_cxstat = 0x22
PMSTAT_reset_cxstat = 0x23

# cpu_hotplug: operations.
XEN_SYSCTL_CPU_HOTPLUG_ONLINE = 0
XEN_SYSCTL_CPU_HOTPLUG_OFFLINE = 1
XEN_SYSCTL_CPU_HOTPLUG_SMT_ENABLE = 2
XEN_SYSCTL_CPU_HOTPLUG_SMT_DISABLE = 3

# pm_op: operations.
GET_CPUFREQ_PARA = 0x11
SET_CPUFREQ_GOV = 0x12
SET_CPUFREQ_PARA = 0x13
GET_CPUFREQ_AVGFREQ = 0x14
XEN_SYSCTL_pm_op_set_sched_opt_smt = 0x21
XEN_SYSCTL_pm_op_get_max_cstate = 0x22
XEN_SYSCTL_pm_op_set_max_cstate = 0x23
XEN_SYSCTL_pm_op_set_vcpu_migration_delay = 0x24
XEN_SYSCTL_pm_op_get_vcpu_migration_delay = 0x25
XEN_SYSCTL_pm_op_enable_turbo = 0x26
XEN_SYSCTL_pm_op_disable_turbo = 0x27

# page_offline_op: operations.
sysctl_page_offline = 1
sysctl_page_online = 2
sysctl_query_page_offline = 3

# lockprof_op: operations.
XEN_SYSCTL_LOCKPROF_reset = 1
XEN_SYSCTL_LOCKPROF_query = 2

# cpupool_op: operations.
XEN_SYSCTL_CPUPOOL_OP_CREATE = 1
XEN_SYSCTL_CPUPOOL_OP_DESTROY = 2
XEN_SYSCTL_CPUPOOL_OP_INFO = 3
XEN_SYSCTL_CPUPOOL_OP_ADDCPU = 4
XEN_SYSCTL_CPUPOOL_OP_RMCPU = 5
XEN_SYSCTL_CPUPOOL_OP_MOVEDOMAIN = 6
XEN_SYSCTL_CPUPOOL_OP_FREEINFO = 7
XEN_SYSCTL_CPUPOOL_PAR_ANY = 0xFFFFFFFF

# scheduler_op: operations and limits.
XEN_SYSCTL_SCHED_RATELIMIT_MAX = 500000
XEN_SYSCTL_SCHED_RATELIMIT_MIN = 100
XEN_SYSCTL_SCHEDOP_putinfo = 0
XEN_SYSCTL_SCHEDOP_getinfo = 1

# The credit scheduler's limits: time slice in milliseconds, migration delay in microseconds.
XEN_SYSCTL_CSCHED_TSLICE_MAX = 1000
XEN_SYSCTL_CSCHED_TSLICE_MIN = 1
XEN_SYSCTL_CSCHED_MGR_DLY_MAX_US = 100000

# coverage_op: operations.
XEN_SYSCTL_COVERAGE_get_size = 0
XEN_SYSCTL_COVERAGE_read = 1
XEN_SYSCTL_COVERAGE_reset = 2

# psr_cmt_op: operations.
XEN_SYSCTL_PSR_CMT_get_total_rmid = 0
XEN_SYSCTL_PSR_CMT_get_l3_upscaling_factor = 1
XEN_SYSCTL_PSR_CMT_get_l3_cache_size = 2
XEN_SYSCTL_PSR_CMT_enabled = 3
XEN_SYSCTL_PSR_CMT_get_l3_event_mask = 4

# psr_alloc: operations.
XEN_SYSCTL_PSR_get_l3_info = 0
XEN_SYSCTL_PSR_get_l2_info = 1
XEN_SYSCTL_PSR_get_mba_info = 2

# get_cpu_featureset: sets.
XEN_SYSCTL_cpu_featureset_raw = 0
XEN_SYSCTL_cpu_featureset_host = 1
XEN_SYSCTL_cpu_featureset_pv = 2
XEN_SYSCTL_cpu_featureset_hvm = 3
XEN_SYSCTL_cpu_featureset_pv_max = 4
XEN_SYSCTL_cpu_featureset_hvm_max = 5

# get_cpu_policy: policies.
XEN_SYSCTL_cpu_policy_raw = 0
XEN_SYSCTL_cpu_policy_host = 1
XEN_SYSCTL_cpu_policy_pv_max = 2
XEN_SYSCTL_cpu_policy_hvm_max = 3
XEN_SYSCTL_cpu_policy_pv_default = 4
XEN_SYSCTL_cpu_policy_hvm_default = 5

# livepatch_op: operations.
XEN_SYSCTL_LIVEPATCH_UPLOAD = 0
XEN_SYSCTL_LIVEPATCH_GET = 1
XEN_SYSCTL_LIVEPATCH_LIST = 2
XEN_SYSCTL_LIVEPATCH_ACTION = 3

# livepatch_op: actions.
LIVEPATCH_ACTION_UNLOAD = 1
LIVEPATCH_ACTION_REVERT = 2
LIVEPATCH_ACTION_APPLY = 3
LIVEPATCH_ACTION_REPLACE = 4
LIVEPATCH_ACTION_APPLY_NODEPS = 1 << 0
