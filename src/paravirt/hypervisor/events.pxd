# Event channels: ports, and how an event reaches a vcpu.
from paravirt.hypervisor.records cimport Domain, Host, Port, Vcpu, u8, u16, u32, u64, i64

# How an event arrives.
cdef void set_pending(Domain* d, u32 port) noexcept nogil
cdef void apply_posted(Domain* d) noexcept nogil
cdef i64 send_virq(Vcpu* v, u32 virq) noexcept nogil
cdef i64 send_global_virq(Domain* d, u32 virq) noexcept nogil
cdef i64 evtchn_send(Host* host, Domain* d, u32 port) noexcept nogil
cdef i64 send_from_guest(Vcpu* v, u32 port) noexcept nogil
cdef i64 unmask(Domain* d, u32 port) noexcept nogil

# What a vcpu has to look at.
cdef bint is_pending(Domain* d, u32 port) noexcept nogil

# Ports: a result is a port, or 0, or a negative error.
cdef bint port_is_valid(Domain* d, u64 port) noexcept nogil
cdef bint in_use(Port* p) noexcept nogil
cdef bint virq_is_global(u32 virq) noexcept nogil
cdef u32 port_limit(Domain* d) noexcept nogil
cdef i64 alloc_port(Domain* d) noexcept nogil
cdef i64 alloc_unbound(Domain* d, u16 remote) noexcept nogil
cdef i64 bind_interdomain(Domain* d, u16 remote, u32 remote_port) noexcept nogil
cdef i64 bind_virq(Domain* d, u32 virq, u32 vcpu) noexcept nogil
cdef i64 bind_ipi(Domain* d, u32 vcpu) noexcept nogil
cdef i64 bind_vcpu(Domain* d, u32 port, u32 vcpu) noexcept nogil
cdef i64 close_port(Domain* d, u32 port) noexcept nogil
cdef i64 set_priority(Domain* d, u32 port, u32 priority) noexcept nogil
cdef i64 expand_array(Domain* d, u64 mfn) noexcept nogil
cdef bint reset_ports(Domain* d) noexcept nogil
cdef bint destroy_ports(Domain* d) noexcept nogil

# Within this module.
cdef bint ensure_ports(Domain* d, u32 count) noexcept nogil
cdef void free_port(Domain* d, u32 port) noexcept nogil
cdef Vcpu* notified_vcpu(Domain* d, u32 port) noexcept nogil
cdef u64* pending_word(Domain* d, u32 port) noexcept nogil
cdef u64* mask_word(Domain* d, u32 port) noexcept nogil
cdef bint domain_quiescent(Domain* d) noexcept nogil
cdef void post(Domain* d, u32 port) noexcept nogil
cdef void deliver(Domain* d, u32 port) noexcept nogil
cdef void select_word(Vcpu* v, u32 port) noexcept nogil
cdef void mark_pending(Vcpu* v) noexcept nogil
cdef void wake_pollers(Domain* d, u32 port) noexcept nogil
cdef void notify_service(Domain* d, u32 port) noexcept nogil
