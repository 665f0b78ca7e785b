# What scheduling keeps for each machine, besides the records: its vcpus in order, and watchdogs.
from paravirt.hypervisor.records cimport Domain, Host, Vcpu, u32, u64

cdef extern from * nogil:
    bint compare_exchange "__atomic_compare_exchange_n"(
        void** at, void** expected, void* desired, bint weak, int success, int failure)
    void* load_pointer "__atomic_load_n"(void** at, int order)
    void store_pointer "__atomic_store_n"(void** at, void* value, int order)
    const int ACQUIRE "__ATOMIC_ACQUIRE"
    const int RELEASE "__ATOMIC_RELEASE"
    const int SEQUENTIAL "__ATOMIC_SEQ_CST"

ctypedef struct Watchdogs:
    Domain* domain       # which forgets them when its vcpus end
    u32 in_use           # bit per timer
    u64 deadline[2]      # system time, ns; 0: not running
    void* next

ctypedef struct MachineState:
    void* host           # whose it is; NULL: nobody's
    Vcpu** vcpus         # all vcpus, by domain and number
    u32 count
    u32 capacity
    Watchdogs* watchdogs
    void* next

ctypedef Watchdogs* WatchdogsPtr
ctypedef MachineState* MachineStatePtr
ctypedef Vcpu** VcpuPtrPtr

cdef void* first

cdef MachineState* claim(Host* host) noexcept nogil
cdef bint comes_before(Vcpu* a, Vcpu* b) noexcept nogil

cdef MachineState* state_of(Host* host) noexcept nogil
cdef MachineState* make_state(Host* host) noexcept nogil
cdef void forget_machine(Host* host) noexcept nogil
cdef bint add_vcpu(Vcpu* v) noexcept nogil
cdef void drop_vcpu(Vcpu* v) noexcept nogil
