# event_channel_op, and the older event_channel_op_compat.  The structures are those of public/event_channel.h.
from paravirt.hypervisor.records cimport Domain, Host, Vcpu, u8, u16, u32, u64, i64

ctypedef struct AllocUnbound:
    u16 dom
    u16 remote_dom
    u32 port

ctypedef struct BindInterdomain:
    u16 remote_dom
    u32 remote_port
    u32 local_port

ctypedef struct BindVirq:
    u32 virq
    u32 vcpu
    u32 port

ctypedef struct BindPirq:
    u32 pirq
    u32 flags
    u32 port

ctypedef struct BindIpi:
    u32 vcpu
    u32 port

ctypedef struct BindVcpu:
    u32 port
    u32 vcpu

ctypedef struct Status:
    u16 dom
    u32 port
    u32 status
    u32 vcpu
    # By status: the remote domain of a channel, or of one to be; its port; or
    # the number of a virtual interrupt, which takes the place of the first two.
    u16 remote_dom
    u16 remote_dom_high
    u32 remote_port

ctypedef struct InitControl:
    u64 control_gfn
    u32 offset
    u32 vcpu
    u8 link_bits
    u8 padding[7]

ctypedef struct ExpandArray:
    u64 array_gfn

ctypedef struct SetPriority:
    u32 port
    u32 priority

ctypedef union Argument:
    u32 port             # close, send, unmask
    u16 dom              # reset
    AllocUnbound alloc_unbound
    BindInterdomain bind_interdomain
    BindVirq bind_virq
    BindPirq bind_pirq
    BindIpi bind_ipi
    BindVcpu bind_vcpu
    Status status
    InitControl init_control
    ExpandArray expand_array
    SetPriority set_priority

cdef i64 do_event_channel_op(Host* host, Vcpu* v, u64* args) noexcept nogil
cdef i64 do_event_channel_op_compat(Host* host, Vcpu* v, u64* args) noexcept nogil

# Within this module.
cdef u64 argument_size(u32 command) noexcept nogil
cdef bint has_answer(u32 command) noexcept nogil
cdef Domain* find_domain(Vcpu* v, u16 domid) noexcept nogil
cdef bint may_control(Vcpu* v, Domain* d) noexcept nogil
cdef u16 resolve(Vcpu* v, u16 domid) noexcept nogil
cdef i64 op_alloc_unbound(Vcpu* v, AllocUnbound* a) noexcept nogil
cdef i64 op_bind_interdomain(Vcpu* v, BindInterdomain* a) noexcept nogil
cdef i64 op_bind_virq(Vcpu* v, BindVirq* a) noexcept nogil
cdef i64 op_bind_pirq(Vcpu* v, BindPirq* a) noexcept nogil
cdef i64 op_bind_ipi(Vcpu* v, BindIpi* a) noexcept nogil
cdef i64 op_status(Vcpu* v, Status* a) noexcept nogil
cdef i64 continue_reset(Vcpu* v, u64* args) noexcept nogil
cdef i64 op_reset(Vcpu* v, u64* args, u16 domid, bint continued) noexcept nogil
cdef i64 op_init_control(Vcpu* v, InitControl* a) noexcept nogil
cdef i64 bind_something(Vcpu* v, u32 command, Argument* a) noexcept nogil
cdef i64 carry_out(Vcpu* v, u64* args, u32 command, Argument* a) noexcept nogil
