from paravirt.hypervisor.records cimport Host, Vcpu, u32, u64, i64

cdef i64 python_hypercall(Host* host, Vcpu* v, u64* args) noexcept nogil
cdef i64 continue_hypercall(Vcpu* v, u64* args, tuple arguments) except? -1
cdef i64 call_family(Host* host, Vcpu* v, u64* args) noexcept
