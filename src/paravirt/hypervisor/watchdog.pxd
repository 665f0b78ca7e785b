# Domain watchdogs (SCHEDOP_watchdog): two timers a domain; expiry shuts it down.
from paravirt.hypervisor.records cimport Domain, Host, u32, u64, i64

cdef void find_next(Host* host) noexcept nogil
cdef i64 start(Domain* d, u64 deadline) noexcept nogil
cdef bint expire(Domain* d, u64 at) noexcept nogil

cdef i64 set_watchdog(Domain* d, u32 number, u32 seconds) noexcept nogil
cdef void forget_watchdogs(Domain* d) noexcept nogil
cdef void run_watchdogs(Host* host, u64 at) noexcept nogil
cdef u64 next_watchdog(Host* host) noexcept nogil
