# Mapping and unmapping, as C functions.
import cython
from paravirt.hypervisor.hypercalls.grant_active cimport Active
from paravirt.hypervisor.hypercalls.maptrack cimport Mapping, MapTrack
from paravirt.hypervisor.records cimport u32, u64

cdef class Unmapped:
    cdef object owner
    cdef u32 ref
    cdef u64 mfn
    cdef u32 flags

@cython.locals(flags=u32, track=MapTrack, mfn=u64)
cpdef int map_grant(vcpu, request) except? -1
@cython.locals(readonly=bint, mfn=u64, taken=u32, wanted=tuple)
cdef u64 _map(vcpu, owner, request, u32 flags) except? 0
@cython.locals(track=MapTrack, mapping=Mapping, active=Active, mfn=u64, new_address=u64, bus_address=u64, flags=u32,
               done=u32)
cpdef int unmap_grant(vcpu, request, list undone) except? -1
@cython.locals(one=Unmapped, wanted=tuple)
cpdef complete_unmaps(vcpu, list undone)
