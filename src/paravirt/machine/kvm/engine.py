# cython: language_level=3, cdivision=True
# mypy: ignore-errors
# ruff: noqa: F821
"""The KVM engine: guest code on the processor itself, at CPL 3 of a virtual machine.  The native half is run.c."""

import cython
from cython.cimports.libc.stdint import uintptr_t
from cython.cimports.paravirt.machine.kvm.engine import (
    CpuidLeaf,
    Findings,
    KvmEnginePtr,
    KvmState,
    kvm_engine_close,
    kvm_engine_open,
    kvm_machine_close,
    kvm_machine_cpuid,
    kvm_machine_open,
    kvm_ops,
    kvm_state_data_selector,
    kvm_state_rip,
)

from paravirt.errors import HypervisorBug, UserError

MAX_LEAVES = 64


class KvmMachine:
    """/dev/kvm for ``size`` bytes of machine memory at host address ``memory``: what a machine's engines share.

    ``findings`` (by the names of ``struct kvm_findings``) are what the self-test found out.

    Raises:
        UserError: /dev/kvm is missing, may not be opened, or lacks something.
    """

    def __init__(self, memory: int, size: int, findings: dict) -> None:
        message: cython.char[256]
        address: uintptr_t = memory
        found: Findings
        message[0] = 0
        found.shadow_tables = findings["shadow_tables"]
        found.reload_repairs = findings["reload_repairs"]
        found.user_stubs = findings["user_stubs"]
        found.real_selectors = findings["real_selectors"]
        found.rip_after_out = findings["rip_after_out"]
        found.icebp_is_fault = findings["icebp_is_fault"]
        found.shortcuts = findings["shortcuts"]
        found.returns = findings["returns"]
        self.machine = kvm_machine_open(
            cython.cast(cython.p_void, address), size, cython.address(found), message, 256
        )
        if self.machine == cython.NULL:
            raise UserError(f"The KVM engine cannot be used: {cython.cast(bytes, message).decode()}.")

    def set_cpuid(self, table: dict) -> None:
        """What ``cpuid`` answers in vcpus made from now on: {(leaf, subleaf or None): (eax, ebx, ecx, edx)}.

        Raises:
            HypervisorBug: there are more leaves than the engine has room for.
        """
        leaves: CpuidLeaf[64]
        count: cython.uint = 0
        if len(table) > MAX_LEAVES:
            raise HypervisorBug(f"a table of cpuid has {len(table)} leaves, more than {MAX_LEAVES}")
        for (leaf, subleaf), registers in table.items():
            leaves[count].leaf = leaf
            leaves[count].any_subleaf = subleaf is None
            leaves[count].subleaf = 0 if subleaf is None else subleaf
            leaves[count].eax = registers[0]
            leaves[count].ebx = registers[1]
            leaves[count].ecx = registers[2]
            leaves[count].edx = registers[3]
            count += 1
        kvm_machine_cpuid(self.machine, leaves, count)

    def close(self) -> None:
        """Give /dev/kvm back; every engine must have been freed."""
        kvm_machine_close(self.machine)
        self.machine = cython.NULL

    def __dealloc__(self) -> None:
        self.close()


class KvmEngine:
    """One physical CPU of a machine; ``capabilities`` and ``native_leaves`` are what the self-test found out."""

    def __init__(self, machine: KvmMachine, capabilities: object, native_leaves: dict) -> None:
        self.name = "kvm"
        self.version = ""
        self.capabilities = capabilities
        self.native_leaves = native_leaves
        self.machine = machine
        self.engine = kvm_engine_open(machine.machine)
        if self.engine == cython.NULL:
            raise MemoryError

    def set_cpuid(self, table: dict) -> None:
        """As :meth:`KvmMachine.set_cpuid`, for all of the machine's engines."""
        self.machine.set_cpuid(table)

    @property
    def ops_address(self) -> int:
        return cython.cast(uintptr_t, cython.address(kvm_ops))

    @property
    def handle(self) -> int:
        return cython.cast(uintptr_t, self.engine)

    @property
    def counters(self) -> dict:
        """How often the guest was entered, page-table entries repaired, entries interrupted, all shadows dropped."""
        return {
            "entries": self.engine.entries,
            "repaired": self.engine.repaired,
            "interrupted": self.engine.interrupted,
            "memslot_resets": self.machine.machine.memslot_resets,
        }

    @property
    def inside_ticks(self) -> int:
        """Ticks of the time-stamp counter that the host's KVM had this physical CPU."""
        return self.engine.inside_ticks

    def raw_state(self, state: int) -> tuple:
        """The selector in DS, and RIP, of the vcpu's state at that address, as KVM showed them at its last exit."""
        address: uintptr_t = state
        record = cython.cast(cython.pointer(KvmState), address)
        return kvm_state_data_selector(record), kvm_state_rip(record)

    def close(self) -> None:
        """Free the engine, and with the last one what the engines share; every vcpu must have been freed."""
        engine: KvmEnginePtr = self.engine
        self.engine = cython.NULL
        if engine == cython.NULL:
            return
        kvm_engine_close(engine)
        if self.machine.machine.engines == cython.NULL:
            self.machine.close()

    def __dealloc__(self) -> None:
        self.close()
