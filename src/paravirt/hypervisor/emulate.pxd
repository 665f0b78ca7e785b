from paravirt.machine.decode cimport Insn
from paravirt.hypervisor.records cimport Host, Vcpu, u8, u16, u32, u64, i64

cdef bint emulate_forced_ud(Host* host, Vcpu* v) noexcept nogil
cdef u64 cr4_of_guests(Host* host) noexcept nogil
cdef bint set_xcr0(Vcpu* v) noexcept nogil
cdef bint is_xsetbv(const Insn* insn) noexcept nogil
cdef bint undefined(Vcpu* v, const Insn* insn) noexcept nogil
cdef bint emulate_ring_0(Host* host, Vcpu* v, const Insn* insn) noexcept nogil
cdef bint emulate_privileged(Host* host, Vcpu* v) noexcept nogil
cdef bint port_allowed(Vcpu* v, u32 port, u32 size) noexcept nogil
cdef u32 read_port(Host* host, Vcpu* v, u32 port, u32 size) noexcept nogil
cdef bint port_instruction(Host* host, Vcpu* v, const Insn* insn) noexcept nogil
cdef bint refuse_string(Vcpu* v, u64 address, bint is_write) noexcept nogil
cdef bint string_port_instruction(Host* host, Vcpu* v, const Insn* insn) noexcept nogil
cdef bint read_control(Vcpu* v, const Insn* insn) noexcept nogil
cdef bint write_control(Vcpu* v, const Insn* insn) noexcept nogil
cdef bint move_debug(Vcpu* v, const Insn* insn) noexcept nogil
cdef void answer_cpuid(Host* host, Vcpu* v) noexcept nogil
cdef u64 cr0_of(Vcpu* v) noexcept nogil
