from paravirt.machine.decode cimport Insn
from paravirt.hypervisor.records cimport Domain, Host, Vcpu, u8, u16, u32, u64, i64

# Results: 0, or a fault as vector << 16 | error code.
cdef i64 load_segment(Host* host, Vcpu* v, int seg, u16 selector) noexcept nogil
cdef i64 load_code_and_stack(Vcpu* v, u16 cs, u16 ss) noexcept nogil
cdef bint check_descriptor(Domain* d, u64* descriptor) noexcept nogil
cdef bint emulate_segment(Host* host, Vcpu* v) noexcept nogil

cdef void reload_segments(Vcpu* v) noexcept nogil
cdef bint check_target(u64 code, u64 rip) noexcept nogil
cdef i64 read_descriptor(Host* host, Vcpu* v, u16 selector, u64* descriptor) noexcept nogil
cdef i64 check_code(Host* host, Vcpu* v, u16 selector, u64* descriptor) noexcept nogil
cdef i64 check_stack(Host* host, Vcpu* v, u16 selector, bint to_64_bit, u64* descriptor) noexcept nogil
cdef void set_segment(Vcpu* v, int seg, u16 selector, u64 descriptor) noexcept nogil
cdef void set_null(Vcpu* v, int seg, u16 selector) noexcept nogil
cdef bint fault(Vcpu* v, i64 result) noexcept nogil
cdef bint read_operand(Vcpu* v, const Insn* insn, u32 size, u64* value) noexcept nogil
cdef bint pop(Vcpu* v, u32 size, u32 count, u64* values) noexcept nogil
cdef bint native_iret(Host* host, Vcpu* v, const Insn* insn) noexcept nogil
cdef bint far_return(Host* host, Vcpu* v, const Insn* insn) noexcept nogil
cdef bint far_transfer(Host* host, Vcpu* v, const Insn* insn) noexcept nogil
cdef bint move_to_segment(Host* host, Vcpu* v, const Insn* insn) noexcept nogil
cdef bint pop_segment(Host* host, Vcpu* v, const Insn* insn, int seg) noexcept nogil
cdef bint load_far_pointer(Host* host, Vcpu* v, const Insn* insn, int seg) noexcept nogil
cdef bint query(Host* host, Vcpu* v, const Insn* insn) noexcept nogil
cdef bint answer_query(Vcpu* v, const Insn* insn, u16 selector, u64 descriptor) noexcept nogil
