from paravirt.machine.cpu cimport u8, u32, u64, i64
ctypedef struct Insn:
    u32 length
    u32 map          # 0: one byte, 1: 0F, 2: 0F38, 3: 0F3A
    u32 opcode
    u32 size         # operand size in bytes
    u8 rex
    u8 lock
    u8 rep
    u8 has_modrm
    u8 mod
    u8 reg
    u8 rm
    u8 seg
    i64 imm
ctypedef Insn* InsnPtr
cdef i64 decode(const u8* code, u64 length, bint long_mode, Insn* insn) noexcept nogil
