from paravirt.hypervisor.records cimport Vcpu, u32, u64

cdef bint is_machine_check_msr(u32 number) noexcept nogil
cdef u64 read_machine_check(Vcpu* v, u32 number) noexcept nogil
cdef bint write_machine_check(Vcpu* v, u32 number, u64 value) noexcept nogil
