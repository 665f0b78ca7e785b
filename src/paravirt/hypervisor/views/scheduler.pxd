# Parameters of scheduling, for Python.
from paravirt.hypervisor.sched.policy cimport Unit

cdef void _set_params(Unit* u, str name, dict wanted) except *
