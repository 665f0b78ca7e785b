# Domain watchdogs (SCHEDOP_watchdog): two timers a domain; expiry shuts it down.
from paravirt.hypervisor.records cimport Domain, Host, u32, u64, i64

cdef extern from * nogil:
    bint compare_exchange "__atomic_compare_exchange_n"(
        void** at, void** expected, void* desired, bint weak, int success, int failure)
    void* load_pointer "__atomic_load_n"(void** at, int order)
    void store_pointer "__atomic_store_n"(void** at, void* value, int order)
    const int SEQUENTIAL "__ATOMIC_SEQ_CST"

ctypedef struct Watchdogs:
    void* host           # NULL: the entry is free
    Domain* domain       # compared, never followed, before the host's table has confirmed it
    u32 domid
    u32 in_use           # bit per timer
    u64 deadline[2]
    void* next

ctypedef Watchdogs* WatchdogsPtr

cdef void* first
cdef Watchdogs* find(Domain* d) noexcept nogil
cdef Watchdogs* claim(Domain* d) noexcept nogil

cdef i64 set_watchdog(Domain* d, u32 number, u32 seconds) noexcept nogil
cdef void forget_watchdogs(Domain* d) noexcept nogil
cdef void run_watchdogs(Host* host, u64 at) noexcept nogil
cdef u64 next_watchdog(Host* host) noexcept nogil
