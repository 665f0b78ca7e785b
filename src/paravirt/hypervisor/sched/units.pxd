# Units of scheduling: made with a domain's first vcpu, and what policies have in common.
from paravirt.hypervisor.records cimport Domain, Host, Pcpu, Vcpu, u32, u64
from paravirt.hypervisor.sched.policy cimport Cpupool, HostSched, PcpuSched, Unit

cdef HostSched* sched_of(Host* host) noexcept nogil
cdef PcpuSched* cpu_of(Pcpu* p) noexcept nogil
cdef Cpupool* new_pool(Host* host) noexcept nogil
cdef void free_pool(Cpupool* pool) noexcept nogil
cdef void end_sched(Host* host) noexcept nogil
cdef bint runs_parallel(Host* host) noexcept nogil
cdef Unit* unit_of(Domain* d) noexcept nogil
cdef Unit* vcpu_unit(Vcpu* v) noexcept nogil
cdef Unit* own_unit(Domain* d, u32 number) noexcept nogil
cdef Unit* make_unit(Domain* d) noexcept nogil
cdef bint make_room(Cpupool* pool, u32 more) noexcept nogil
cdef void enter_pool(Unit* u, Cpupool* pool) noexcept nogil
cdef void leave_pool(Unit* u) noexcept nogil
cdef void drop_unit(Unit* u) noexcept nogil
cdef void set_awake(Unit* u, bint awake) noexcept nogil
cdef bint allowed(Unit* u, Pcpu* p) noexcept nogil
cdef bint prefers(Unit* u, Pcpu* p) noexcept nogil
cdef bint waits_elsewhere(Unit* u, Pcpu* p) noexcept nogil
cdef Pcpu* least_loaded(Unit* u) noexcept nogil
cdef void to_the_end(Unit* u) noexcept nogil
cdef void default_params(Unit* u) noexcept nogil
