# How the use of grants begins and ends, as C functions.
import cython
from paravirt.hypervisor.records cimport u32, u64
from paravirt.hypervisor.hypercalls.grant_frames cimport Active, GrantFrames

cdef class Part:
    cdef readonly u64 mfn
    cdef readonly u32 start
    cdef readonly u32 length

@cython.locals(wanted=u32)
cpdef tuple kinds(u32 flags)
cpdef bint take_frame(host, u64 mfn, u32 domid, bint readonly) except -1
cpdef put_frame(host, u64 mfn, bint readonly)
@cython.locals(pinned=bint, mask=u32, wanted=u32, address=u64, word=u32, flags=u32, domid=u32)
cdef _set_status(owner, GrantFrames grants, u32 ref, u32 user, bint readonly, bint is_mapping)
@cython.locals(active=Active, used=bint, written=bint, bits=u32)
cdef _clear_unused(owner, GrantFrames grants, u32 ref, bint readonly)
cdef _check_active(Active active, u32 user, tuple wanted)
@cython.locals(active=Active, grants=GrantFrames, readonly=bint, mfn=u64)
cpdef Active pin_for_mapping(owner, u32 ref, u32 user, u32 flags)
@cython.locals(active=Active, grants=GrantFrames)
cpdef unpin(owner, u32 ref, tuple wanted)
@cython.locals(active=Active, grants=GrantFrames)
cpdef Part acquire_for_copy(owner, u32 ref, u32 user, bint readonly, bint may_lead_on=*)
@cython.locals(part=Part)
cdef tuple _copy_frame(owner, GrantFrames grants, u32 ref, Active active, u32 user, bint readonly, bint may_lead_on)
cpdef release_for_copy(owner, u32 ref, Part part, bint readonly)
