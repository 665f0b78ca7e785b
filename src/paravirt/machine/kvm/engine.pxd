from paravirt.machine.cpu cimport CpuOps, u8, u16, u32, u64

cdef extern from "paravirt/machine/kvm/kvm.h":
    ctypedef struct Findings "struct kvm_findings":
        u8 shadow_tables
        u8 reload_repairs
        u8 user_stubs
        u8 real_selectors
        u8 rip_after_out
        u8 icebp_is_fault
        u8 shortcuts
        u8 returns

    ctypedef struct CpuidLeaf "struct kvm_cpuid_leaf":
        u32 leaf, subleaf, any_subleaf
        u32 eax, ebx, ecx, edx

    ctypedef struct KvmState "struct kvm_state":
        pass

    ctypedef struct KvmMachineC "struct kvm_machine":
        u64 memslot_resets
        void* engines

    ctypedef struct KvmEngineC "struct kvm_engine":
        u64 entries, repaired, interrupted, inside_ticks

    const CpuOps kvm_ops
    KvmMachineC* kvm_machine_open(void* memory, u64 size, const Findings* findings, char* error,
                                  size_t error_size) nogil
    void kvm_machine_close(KvmMachineC* machine) nogil
    void kvm_machine_cpuid(KvmMachineC* machine, const CpuidLeaf* leaves, unsigned count) nogil
    KvmEngineC* kvm_engine_open(KvmMachineC* machine) nogil
    void kvm_engine_close(KvmEngineC* engine) nogil
    u16 kvm_state_data_selector(const KvmState* state) nogil
    u64 kvm_state_rip(const KvmState* state) nogil

ctypedef KvmEngineC* KvmEnginePtr

cdef class KvmMachine:
    cdef KvmMachineC* machine

cdef class KvmEngine:
    cdef KvmMachine machine
    cdef KvmEngineC* engine
    cdef readonly str name
    cdef readonly str version
    cdef readonly object capabilities
    cdef readonly dict native_leaves
