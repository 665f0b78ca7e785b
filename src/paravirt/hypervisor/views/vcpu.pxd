from paravirt.hypervisor.records cimport Domain as DomainRec
from paravirt.hypervisor.records cimport Vcpu as VcpuRec
from paravirt.hypervisor.records cimport CallbackPtr
from paravirt.hypervisor.records cimport u8, u16, u32, u64, i64

cdef class Vcpu:
    cdef VcpuRec* rec
    cdef readonly object domain
    cdef bint released
    cdef CallbackPtr _callback(self, int type)

cdef Vcpu new_vcpu(object domain, DomainRec* domain_rec, u32 number)
