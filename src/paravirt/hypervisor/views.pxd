from paravirt.hypervisor.records cimport Domain as DomainRec
from paravirt.hypervisor.records cimport Host as HostRec
from paravirt.hypervisor.records cimport Pcpu as PcpuRec
from paravirt.hypervisor.records cimport Vcpu as VcpuRec
from paravirt.hypervisor.records cimport CallbackPtr
from paravirt.hypervisor.records cimport u8, u16, u32, u64, i64

ctypedef HostRec* HostRecPtr
ctypedef DomainRec* DomainRecPtr
ctypedef VcpuRec* VcpuRecPtr
ctypedef PcpuRec* PcpuRecPtr

cdef class MachineLock:
    cdef HostRec* rec
    cdef readonly object keeper

cdef class Host:
    cdef HostRec* rec
    cdef readonly object memory
    cdef readonly list engines
    cdef readonly MachineLock lock
    cdef readonly dict domains
    cdef readonly dict families
    cdef public object service_step
    cdef public object trace_sink
    cdef void _set_up_m2p(self)
    cdef void _add_pcpu(self, object engine)

cdef class Domain:
    cdef DomainRec* rec
    cdef readonly Host host
    cdef readonly list vcpus
    cdef public object console_sink
    cdef public str name
    cdef readonly object p2m
    cdef public object state
    cdef u64 pirq_eoi_mfn
    cdef u64 _share_frame(self, bint writable)

cdef class Vcpu:
    cdef VcpuRec* rec
    cdef readonly Domain domain
    cdef CallbackPtr _callback(self, int type)

cdef i64 python_hypercall(HostRec* host, VcpuRec* v, u64* args) noexcept nogil
cdef i64 continue_hypercall(VcpuRec* v, u64* args, tuple arguments) except? -1
cdef i64 call_family(HostRec* host, VcpuRec* v, u64* args) noexcept
cdef void run_service_step(HostRec* host) noexcept nogil
cdef double ticks_to_ns(HostRec* rec) noexcept nogil
