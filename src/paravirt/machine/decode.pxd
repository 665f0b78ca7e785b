from paravirt.machine.cpu cimport Cpu, u8, u16, u32, u64, i64

ctypedef struct Insn:
    u32 length
    u32 map          # 0: one-byte opcodes, 1: 0F, 2: 0F 38, 3: 0F 3A
    u32 opcode
    u32 size         # operand size in bytes: 1, 2, 4 or 8
    u32 address_size # 2, 4 or 8
    u8 rex
    u8 lock
    u8 rep           # 0xF2, 0xF3 or 0
    u8 segment       # SEG_* of an override, or 255
    u8 has_modrm
    u8 mod
    u8 reg           # with REX.R
    u8 rm            # with REX.B
    u8 base          # register number, or 255
    u8 index         # register number, or 255
    u8 scale         # shift
    u8 rip_relative
    i64 displacement
    i64 immediate

ctypedef Insn* InsnPtr
ctypedef const Insn* ConstInsnPtr

cdef i64 decode(const u8* code, u64 length, bint long_mode, Insn* insn) noexcept nogil
cdef u64 effective_address(const Cpu* cpu, const Insn* insn) noexcept nogil
cdef u64 linear_address(const Cpu* cpu, const Insn* insn, u8 segment, u64 offset) noexcept nogil
cdef u8 default_segment(const Insn* insn) noexcept nogil
cdef u64 parse_prefixes(const u8* code, u64 length, bint long_mode, Insn* insn, bint* word) noexcept nogil
cdef u64 parse_modrm(const u8* code, u64 length, u64 at, bint long_mode, Insn* insn) noexcept nogil
cdef u64 parse_memory(const u8* code, u64 length, u64 at, bint long_mode, Insn* insn) noexcept nogil
cdef u32 memory_16(Insn* insn) noexcept nogil
cdef char operand_form(const Insn* insn, bint long_mode, bint word) noexcept nogil
cdef u32 immediate_bytes(const Insn* insn, char form) noexcept nogil
cdef bint absent_from_long_mode(u32 opcode) noexcept nogil
cdef bint is_byte_operation(u32 map, u32 opcode) noexcept nogil
cdef u64 read_number(const u8* code, u32 size) noexcept nogil
cdef i64 sign_extend(u64 value, u32 size) noexcept nogil
