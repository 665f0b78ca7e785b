"""System-wide profiling.

Public header: ``xen/xenoprof.h`` (Xen 4.17).
"""

# xenoprof_op: sub-operations.
XENOPROF_init = 0
XENOPROF_reset_active_list = 1
XENOPROF_reset_passive_list = 2
XENOPROF_set_active = 3
XENOPROF_set_passive = 4
XENOPROF_reserve_counters = 5
XENOPROF_counter = 6
XENOPROF_setup_events = 7
XENOPROF_enable_virq = 8
XENOPROF_start = 9
XENOPROF_stop = 10
XENOPROF_disable_virq = 11
XENOPROF_release_counters = 12
XENOPROF_shutdown = 13
XENOPROF_get_buffer = 14
XENOPROF_set_backtrace = 15
XENOPROF_get_ibs_caps = 16
XENOPROF_ibs_counter = 17
XENOPROF_last_op = 17

# Limits.
MAX_OPROF_EVENTS = 32
MAX_OPROF_DOMAINS = 25
XENOPROF_CPU_TYPE_SIZE = 64

# Samples that are no samples.
XENOPROF_ESCAPE_CODE = 0xFFFF_FFFF_FFFF_FFFF
XENOPROF_TRACE_BEGIN = 1
