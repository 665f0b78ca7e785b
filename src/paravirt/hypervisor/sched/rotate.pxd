# Turns of the vcpus inside a unit.
from paravirt.hypervisor.records cimport Pcpu, Vcpu, u64
from paravirt.hypervisor.sched.policy cimport Unit

cdef Vcpu* next_after(Unit* u, Vcpu* v) noexcept nogil
cdef Vcpu* next_turn(Unit* u, u64 at) noexcept nogil
