# Which vcpus' timers are due next, for each physical CPU.
from paravirt.hypervisor.records cimport Pcpu, Vcpu, u64

cdef u64 first_due(Vcpu* v) noexcept nogil
cdef bint goes_before(Vcpu* a, Vcpu* b) noexcept nogil
cdef Vcpu* meld(Vcpu* a, Vcpu* b) noexcept nogil
cdef Vcpu* meld_row(Vcpu* v) noexcept nogil
cdef void requeue(Vcpu* v) noexcept nogil

cdef void set_singleshot(Vcpu* v, u64 at) noexcept nogil
cdef void set_poll_deadline(Vcpu* v, u64 at) noexcept nogil
cdef void leave_timers(Vcpu* v) noexcept nogil
cdef void join_timers(Vcpu* v, Pcpu* p) noexcept nogil
cdef Vcpu* first_timer(Pcpu* p) noexcept nogil
