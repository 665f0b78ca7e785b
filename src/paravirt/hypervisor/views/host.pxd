from paravirt.hypervisor.records cimport Domain as DomainRec
from paravirt.hypervisor.records cimport Host as HostRec
from paravirt.hypervisor.records cimport u8, u16, u32, u64, i64

cdef class MachineLock:
    cdef HostRec* rec
    cdef readonly object keeper

cdef class Quiesced:
    cdef HostRec* rec
    cdef DomainRec* domain
    cdef u64 held
    cdef object keeper

cdef class Host:
    cdef HostRec* rec
    cdef readonly object memory
    cdef readonly list engines
    cdef readonly MachineLock lock
    cdef readonly dict domains
    cdef readonly dict zombies
    cdef readonly dict families
    cdef public object service_step
    cdef public object trace_sink
    cdef void _set_up_m2p(self)
    cdef void _reserve_slots(self)
    cdef void _add_pcpu(self, object engine)

cdef void run_service_step(HostRec* host) noexcept nogil
cdef double ticks_to_ns(HostRec* rec) noexcept nogil
