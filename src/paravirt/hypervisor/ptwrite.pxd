from paravirt.machine.decode cimport Insn
from paravirt.hypervisor.records cimport Vcpu, u32, u64, i64

# A write to memory that the hypervisor carries out for the guest.
ctypedef struct WritePlan:
    u32 size         # bytes
    u64 shift        # of the operand within the aligned 8 bytes
    u64 mask         # of the operand
    u64 old          # the operand before
    u64 source       # the other operand
    u64 result       # the operand after

ctypedef WritePlan* WritePlanPtr
ctypedef const WritePlan* ConstWritePlanPtr

cdef i64 plan_write(Vcpu* v, const Insn* insn, u64 fault_address, u64 old, u64* new, WritePlan* plan) noexcept nogil
cdef void finish_write(Vcpu* v, const Insn* insn, const WritePlan* plan) noexcept nogil
cdef bint is_push(const Insn* insn) noexcept nogil
cdef bint is_bit_string(const Insn* insn) noexcept nogil
cdef bint is_flat(const Insn* insn) noexcept nogil
cdef u64 operand_address(Vcpu* v, const Insn* insn) noexcept nogil
cdef bint compute_one_byte(Vcpu* v, const Insn* insn, WritePlan* plan) noexcept nogil
cdef bint compute_two_byte(Vcpu* v, const Insn* insn, WritePlan* plan) noexcept nogil
cdef bint compute_bit(Vcpu* v, const Insn* insn, WritePlan* plan) noexcept nogil
cdef bint compute(Vcpu* v, const Insn* insn, WritePlan* plan) noexcept nogil
cdef bint alu(u32 operation, Vcpu* v, WritePlan* plan) noexcept nogil
cdef void set_register(Vcpu* v, u32 number, u32 size, u64 value) noexcept nogil
cdef u64 get_register(Vcpu* v, const Insn* insn, u32 number) noexcept nogil
cdef void set_operand(Vcpu* v, const Insn* insn, u64 value) noexcept nogil
cdef void flags_logic(Vcpu* v, u64 result, u32 size) noexcept nogil
cdef void flags_add(Vcpu* v, u64 a, u64 b, u64 result, u32 size) noexcept nogil
cdef void flags_sub(Vcpu* v, u64 a, u64 b, u64 result, u32 size) noexcept nogil
cdef void flags_alu(u32 operation, Vcpu* v, const WritePlan* plan) noexcept nogil
cdef bint next_element(Vcpu* v, const Insn* insn, u32 size) noexcept nogil
cdef bint finish_one_byte(Vcpu* v, const Insn* insn, const WritePlan* plan) noexcept nogil
cdef void finish_two_byte(Vcpu* v, const Insn* insn, const WritePlan* plan) noexcept nogil
cdef u64 size_mask(u32 size) noexcept nogil
