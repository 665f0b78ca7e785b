from paravirt.hypervisor.records cimport Host, Vcpu, u32, u64

cdef bint in_machine_to_phys(Host* host, Vcpu* v, u64 address) noexcept nogil
cdef bint read_machine_to_phys(Host* host, Vcpu* v, u32 error, u64 address) noexcept nogil
cdef void compare(Vcpu* v, u64 first, u64 second, u32 size) noexcept nogil
