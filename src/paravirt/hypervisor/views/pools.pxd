# Pools of physical CPUs as Python sees them.
from paravirt.hypervisor.records cimport Pcpu
from paravirt.hypervisor.sched.policy cimport Cpupool
from paravirt.hypervisor.views.host cimport Host

cdef int _domains(Cpupool* pool) noexcept
cdef Pcpu* pcpu_of(Host host, object cpu) except NULL
