# Parameters of scheduling as Python sees them.
from paravirt.hypervisor.sched.policy cimport Cpupool, Unit
from paravirt.hypervisor.views.host cimport Host

cdef Cpupool* pool_of_number(Host host, object number) except NULL
cdef str policy_name(Cpupool* pool)
cdef void _set_params(Unit* u, str name, dict wanted) except *
