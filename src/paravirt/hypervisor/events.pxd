from paravirt.hypervisor.records cimport Domain, Host, Port, Vcpu, u8, u16, u32, u64, i64

# What other modules use.
cdef void set_pending(Domain* d, u32 port) noexcept nogil
cdef i64 evtchn_send(Host* host, Domain* d, u32 port) noexcept nogil
cdef i64 send_virq(Vcpu* v, u32 virq) noexcept nogil
cdef void apply_posted(Domain* d) noexcept nogil
cdef i64 alloc_unbound(Domain* d, u16 remote) noexcept nogil
cdef i64 bind_interdomain(Domain* d, u16 remote, u32 remote_port) noexcept nogil
cdef i64 close_port(Domain* d, u32 port) noexcept nogil
cdef i64 unmask(Domain* d, u32 port) noexcept nogil
cdef void destroy_all_ports(Domain* d) noexcept nogil

# Shared with the operations and the FIFO ABI.
cdef i64 alloc_port(Domain* d) noexcept nogil
cdef void free_port(Domain* d, u32 port) noexcept nogil
cdef bint port_is_valid(Domain* d, u64 port) noexcept nogil
cdef bint quiescent(Domain* d) noexcept nogil
cdef void deliver(Domain* d, u32 port) noexcept nogil
cdef void mark_pending(Vcpu* v) noexcept nogil
cdef void wake_pollers(Domain* d, u32 port) noexcept nogil
cdef void notify_service(Host* host, Domain* d, u32 port) noexcept nogil
cdef bint is_pending(Domain* d, u32 port) noexcept nogil
cdef bint grow_ports(Domain* d) noexcept nogil
cdef u64* pending_word(Domain* d, u32 port) noexcept nogil
cdef u64* mask_word(Domain* d, u32 port) noexcept nogil
