# vcpu_op: operations on a vcpu of the caller's domain.
from paravirt.hypervisor.records cimport Host, Vcpu, u64, i64

cdef i64 initialise(Host* host, Vcpu* current, Vcpu* v, u64 arg) noexcept nogil
cdef i64 down(Vcpu* v) noexcept nogil
cdef i64 register_runstate_area(Vcpu* current, Vcpu* v, u64 arg) noexcept nogil
cdef i64 register_time_area(Vcpu* current, Vcpu* v, u64 arg) noexcept nogil
cdef i64 set_periodic_timer(Vcpu* current, Vcpu* v, u64 arg) noexcept nogil
cdef i64 set_singleshot_timer(Vcpu* current, Vcpu* v, u64 arg) noexcept nogil
cdef i64 register_vcpu_info(Host* host, Vcpu* current, Vcpu* v, u64 arg) noexcept nogil
cdef i64 map_vcpu_info(Host* host, Vcpu* current, Vcpu* v, u64 mfn, u64 offset) noexcept nogil
cdef i64 timer_op(Vcpu* current, Vcpu* v, int command, u64 arg) noexcept nogil
cdef i64 area_op(Host* host, Vcpu* current, Vcpu* v, int command, u64 arg) noexcept nogil

cdef i64 do_vcpu_op(Host* host, Vcpu* v, u64* args) noexcept nogil
