from paravirt.hypervisor.records cimport Host, Vcpu, u32, u64, i64
from paravirt.machine.decode cimport Insn
cdef bint emulate_forced_ud(Host* host, Vcpu* v) noexcept nogil
cdef bint emulate_privileged(Host* host, Vcpu* v) noexcept nogil
cdef i64 plan_write(Vcpu* v, Insn* insn, u64 address, u64 old, u64* new) noexcept nogil
cdef void finish_write(Vcpu* v, Insn* insn, u64 address, u64 old) noexcept nogil
