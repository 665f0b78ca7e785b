# cython: language_level=3, cdivision=True
# mypy: ignore-errors
# ruff: noqa: F821
"""Proof, at start, that the library's private layout is the one that the shim was written for.

A program of a few instructions provokes one exit of each kind, in kernel and user mode, and a stop; each must
arrive with its vector, error code, address and instruction pointer.  It takes about two milliseconds.
"""

import cython
from cython.cimports.libc.stdint import uintptr_t
from cython.cimports.libc.string import memset
from cython.cimports.paravirt.machine.cpu import (
    CPU_LEAVE,
    CPU_RESUME,
    EXIT_CPUID,
    EXIT_EXCEPTION,
    EXIT_KICKED,
    EXIT_SOFTINT,
    EXIT_SYSCALL,
    Cpu,
    CpuExitPtr,
    CpuOpsPtr,
    CpuPtr,
)
from cython.cimports.paravirt.machine.unicorn.selftest import Probe, ProbePtr

from paravirt.errors import UserError
from paravirt.machine.memory import Memory
from paravirt.machine.unicorn.engine import VERSION, UnicornEngine

CODE = 0x1000
UNMAPPED = 0x20000

# (name, bytes, kind, vector, error code, address, how far rip is past the start)
STEPS: list = [
    ("a page fault on a read", b"\x48\x8b\x04\x25\x00\x00\x02\x00", EXIT_EXCEPTION, 14, 0, UNMAPPED, 0),
    ("a privileged instruction", b"\xf4", EXIT_EXCEPTION, 13, 0, 0, 0),
    ("an undefined instruction", b"\x0f\x0b", EXIT_EXCEPTION, 6, 0, 0, 0),
    ("a software interrupt", b"\xcd\x20", EXIT_SOFTINT, 0x20, None, 0, 2),
    (
        "a second page fault, on a write",
        b"\x48\x89\x04\x25\x08\x10\x02\x00",
        EXIT_EXCEPTION,
        14,
        2,
        UNMAPPED + 0x1008,
        0,
    ),
    ("a null stack segment", b"\x8e\xd6", EXIT_EXCEPTION, 13, 0, 0, 0),
    ("an interrupt return", b"\x48\xcf", EXIT_EXCEPTION, 13, 0, 0, 0),
    ("a port access", b"\xe4\x60", EXIT_EXCEPTION, 13, 0, 0, 0),
    ("a cpuid", b"\x0f\xa2", EXIT_CPUID, 0, None, 0, 0),
    ("a system call", b"\x0f\x05", EXIT_SYSCALL, 0, None, 0, 2),
    (
        "a page fault in user mode",
        b"\x48\x8b\x04\x25\x00\x20\x02\x00",
        EXIT_EXCEPTION,
        14,
        4,
        UNMAPPED + 0x2000,
        0,
    ),
    ("a stop", b"\xeb\xfe", EXIT_KICKED, 0, None, 0, 0),
]
LENGTHS = cython.declare(cython.int[16])


def on_probe_exit(owner: cython.p_void, cpu: CpuPtr, exit: CpuExitPtr) -> cython.int:
    """Write down what arrived, and step over the instruction."""
    probe: ProbePtr = cython.cast(ProbePtr, owner)
    step: cython.int = probe.step
    if step >= 12:
        return CPU_LEAVE
    probe.kinds[step] = exit.kind
    probe.vectors[step] = exit.vector
    probe.errors[step] = exit.error_code
    probe.addresses[step] = exit.address
    probe.rips[step] = cpu.rip
    probe.step = step + 1
    if exit.kind == EXIT_EXCEPTION:
        cpu.rip += LENGTHS[step]
    elif exit.kind == EXIT_SYSCALL:
        cpu.user = 1
    elif exit.kind == EXIT_KICKED:
        return CPU_LEAVE
    if step == 10:
        probe.ops.kick(probe.engine)
    return CPU_RESUME


def self_test() -> None:
    """Run the program on an engine of its own.

    Raises:
        UserError: something arrived otherwise than expected: the library is not what it says it is.
    """
    memory = Memory(32)
    probe: Probe
    cpu: Cpu
    step: cython.int
    ops_address: uintptr_t
    handle: uintptr_t
    state: cython.p_void
    address = CODE
    starts = []
    for step, (_, code, *_) in enumerate(STEPS):
        memory.write(address, code)
        LENGTHS[step] = len(code)
        starts.append(address)
        address += len(code)
    for level, table in enumerate((16, 17, 18)):
        memory.write(table << 12, ((17 + level) << 12 | 7).to_bytes(8, "little"))
    for page in range(16):
        memory.write((19 << 12) + page * 8, (page << 12 | 7).to_bytes(8, "little"))
    engine = UnicornEngine(memory.address, memory.size, False, 1)
    try:
        ops_address = engine.ops_address
        handle = engine.handle
        memset(cython.address(probe), 0, cython.sizeof(probe))
        memset(cython.address(cpu), 0, cython.sizeof(cpu))
        probe.ops = cython.cast(CpuOpsPtr, ops_address)
        probe.engine = cython.cast(cython.p_void, handle)
        state = probe.ops.new_state(probe.engine, cython.address(cpu))
        cpu.engine_state = state
        cpu.kernel_cr3 = 16 << 12
        cpu.user_cr3 = 16 << 12
        cpu.rip = CODE
        cpu.rflags = 0x202
        cpu.seg[1].flags = 0x00A0FB00
        cpu.seg[2].flags = 0x00C0F300
        cpu.segs_dirty = 1
        with cython.nogil:
            probe.ops.run(probe.engine, cython.address(cpu), on_probe_exit, cython.address(probe))
        check(
            [
                (
                    probe.kinds[step],
                    probe.vectors[step],
                    probe.errors[step],
                    probe.addresses[step],
                    probe.rips[step],
                )
                for step in range(probe.step)
            ],
            starts,
        )
        probe.ops.free_state(probe.engine, state)
    finally:
        engine.close()
        memory.close()


def check(arrived: list, starts: list) -> None:
    """Compare what arrived with what should have."""
    for step, (name, _, kind, vector, error, fault, past) in enumerate(STEPS):
        found = arrived[step] if step < len(arrived) else (None, 0, 0, 0, 0)
        if error is None:
            error = found[2]
        if found != (kind, vector, error, fault, starts[step] + past):
            raise UserError(
                f"The Unicorn engine cannot be used: {name} does not arrive as it does with version {VERSION} "
                "on x86-64 Linux, so the library has another layout."
            )
