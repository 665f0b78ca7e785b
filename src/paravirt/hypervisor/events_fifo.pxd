from paravirt.hypervisor.records cimport Domain, FifoQueue, Vcpu, u8, u32, u64, i64

cdef u32* fifo_word(Domain* d, u32 port) noexcept nogil
cdef bint fifo_is_pending(Domain* d, u32 port) noexcept nogil
cdef void fifo_clear_pending(Domain* d, u32 port) noexcept nogil
cdef void fifo_set_pending(Domain* d, Vcpu* v, u32 port) noexcept nogil
cdef void fifo_queue_event(Domain* d, Vcpu* v, u32 port, u32* word) noexcept nogil
cdef void fifo_unmask(Domain* d, Vcpu* v, u32 port) noexcept nogil
cdef void fifo_destroy(Domain* d) noexcept nogil
cdef i64 fifo_init_control(Domain* d, u64 mfn, u32 offset, Vcpu* v) noexcept nogil
cdef i64 fifo_expand_array(Domain* d, u64 mfn) noexcept nogil
cdef i64 fifo_set_priority(Domain* d, u32 port, u32 priority) noexcept nogil
