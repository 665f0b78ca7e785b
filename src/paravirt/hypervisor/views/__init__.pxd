from paravirt.hypervisor.views.domain cimport Domain
from paravirt.hypervisor.views.host cimport Host, MachineLock
from paravirt.hypervisor.views.vcpu cimport Vcpu
