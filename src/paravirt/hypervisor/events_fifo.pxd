# The FIFO event-channel ABI: event words, queues, and the pages of the guest's that hold them.
from paravirt.hypervisor.records cimport Domain, FifoQueue, Vcpu, u32, u64, i64

cdef enum FifoNews:
    FIFO_NEWS = 1            # the event was not pending before
    FIFO_UPCALL = 2          # a queue has something in it, which the guest was not told yet

cdef enum:
    FIFO_WORDS_PER_PAGE = 1024
    FIFO_MAX_PAGES = 128
    FIFO_CONTROL_SIZE = 72

# The control block: `ready` (one bit for each queue), a reserved word, and the heads of the queues.
ctypedef struct FifoControl:
    u32 ready
    u32 reserved
    u32 head[16]

cdef u32 fifo_set_pending(Domain* d, Vcpu* v, u32 port) noexcept nogil
cdef bint fifo_unmask(Domain* d, u32 port) noexcept nogil
cdef void fifo_clear_pending(Domain* d, u32 port) noexcept nogil
cdef bint fifo_is_pending(Domain* d, u32 port) noexcept nogil
cdef bint fifo_is_linked(Domain* d, u32 port) noexcept nogil
cdef i64 fifo_init_control(Domain* d, Vcpu* v, u64 mfn, u32 offset) noexcept nogil
cdef i64 fifo_add_page(Domain* d, u64 mfn) noexcept nogil
cdef void fifo_destroy(Domain* d) noexcept nogil

# Within this module.
cdef u32* event_word(Domain* d, u32 port) noexcept nogil
cdef bint set_link(u32* word, u32 port) noexcept nogil
cdef bint append(Domain* d, Vcpu* v, u32 port) noexcept nogil
cdef i64 take_over(Domain* d) noexcept nogil
