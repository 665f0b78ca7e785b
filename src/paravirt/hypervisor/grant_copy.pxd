from paravirt.hypervisor.records cimport u32

cdef bint begin_use(u32* word, u32 user, bint readonly) noexcept nogil
cdef void end_use(u32* word) noexcept nogil
