# cython: language_level=3, cdivision=True
# mypy: ignore-errors
# ruff: noqa: F821
"""What kind of host this is, found out at start by programs of a few instructions in a scratch virtual machine.

KVM differs from host to host: some translate guest addresses in hardware and some keep shadow page tables, which
learn of changes only from the guest's own writes, at once or when it loads CR3; some run what the processor cannot
virtualise by emulation, with its gaps.  Each finding picks a method in run.c, or a capability.  What no method makes
right refuses the engine.
"""

from time import monotonic_ns

import cython
from cython.cimports.libc.stdint import uintptr_t
from cython.cimports.libc.string import memset
from cython.cimports.paravirt.machine.cpu import (
    CPU_LEAVE,
    EXIT_EXCEPTION,
    EXIT_SOFTINT,
    EXIT_SYSCALL,
    SHORTCUT_ABSENT_VCPUS,
    SHORTCUT_RETURN,
    SHORTCUT_TIMER,
    Cpu,
    CpuExitPtr,
    CpuOpsPtr,
    CpuPtr,
    U64Ptr,
    u64,
)
from cython.cimports.paravirt.machine.kvm.selftest import StopPtr

from paravirt.errors import UserError
from paravirt.machine.cpu import Capabilities
from paravirt.machine.kvm.engine import KvmEngine, KvmMachine
from paravirt.machine.memory import Memory

CODE = 0x1000
FRAMES = 512
L4, L3, L2, L1, HIGH_L3, OTHER_L1, OTHER_L2, OTHER_L3, PROCESS_L4 = range(16, 25)
ONE, TWO = 5, 6
UNMAPPED = 0x20000
OTHER = 0x205000
"""The page that the other L1 table leads to, when it is in use."""
MANY = 300
"""More than the repairs that an engine keeps in mind."""
LONGEST_NS = 10**10
"""What a scratch machine may take, by far: after that its program, which has no end on an odd host, is stopped."""
GS_BASE = 0x1234000
MAX_STATES = 32
"""Of XCR0, the bits that may have a leaf."""
PROCESS, FRAME, INFO = 0x2000, 0x3000, 0x4040
"""Where a process's code is, the frame of the iret that leads there, and the vcpu_info."""
QUEUE = 0xFFFF_8100_0000_C000
"""Where a guest's kernel has the engine's queue (trampoline.h)."""
HIGH_256, HIGH_257 = 0xFFFF_8000_0000_1000, 0xFFFF_8080_0000_1000

READ_PAGE = b"\x48\x8b\x04\x25\x00\x50\x00\x00\x0f\x05"  # mov 0x5000, %rax; syscall
READ_RDI = b"\x48\x8b\x07\x0f\x05"  # mov (%rdi), %rax; syscall
SYSCALL = b"\x0f\x05"
MOVE_DS = b"\x8e\xd8\x8c\xde\x0f\x05"  # mov %eax, %ds; mov %ds, %esi; syscall
OUT = b"\xe6\x10\x0f\x05"
INTERRUPT = b"\xcd\x20"
FLOAT = b"\x0f\x28\xc0\x0f\x05"  # movaps %xmm0, %xmm0; syscall
HALT = b"\xf4"
UNDEFINED = b"\x0f\x0b"
ICEBP = b"\xf1\x0f\x05"
CPUID = b"\x89\xf1\x0f\xa2\x89\xce\x0f\x05"  # mov %esi, %ecx; cpuid; mov %ecx, %esi; syscall
IRET = b"\xb8\x17\x00\x00\x00\x0f\x05"  # mov $23, %eax; syscall
NULL_GS = b"\x31\xc0\x8e\xe8"  # xor %eax, %eax; mov %eax, %gs
READ_QUEUE = b"\x48\xa1" + QUEUE.to_bytes(8, "little") + UNDEFINED  # movabs QUEUE, %rax; ud2
NOPS = b"\x90\x90\x90\x90\x0f\x05"
PAST_READ = (EXIT_SYSCALL, 0, 0, 0, 5)
"""How READ_RDI stops when nothing is in its way."""

# A plain 64-bit processor: FPU TSC MSR PAE CX8 CMOV FXSR SSE SSE2; SYSCALL NX LM.
PROCESSOR = {
    (0, None): (1, 0x756E6547, 0x6C65746E, 0x49656E69),
    (1, None): (0x000106CA, 0, 0, 0x07008171),
    (0x80000000, None): (0x80000008, 0, 0, 0),
    (0x80000001, None): (0, 0, 0, 0x20100800),
    (0x80000008, None): (48 << 8 | 40, 0, 0, 0),
}

SAFE = {"shadow_tables": 0, "reload_repairs": 0, "user_stubs": 0, "real_selectors": 0, "rip_after_out": 0,
        "icebp_is_fault": 0, "shortcuts": 0, "returns": 0}  # fmt: skip
# How changes of page tables can be made known to a host, the cheapest way first.
TABLES = (
    {"shadow_tables": 0, "reload_repairs": 0},
    {"shadow_tables": 1, "reload_repairs": 0},
    {"shadow_tables": 1, "reload_repairs": 1},
)


def on_stop(owner: cython.p_void, cpu: CpuPtr, exit: CpuExitPtr) -> cython.int:
    """Write down what arrived, and leave."""
    stop: StopPtr = cython.cast(StopPtr, owner)
    stop.kind = exit.kind
    stop.vector = exit.vector
    stop.error = exit.error_code
    stop.address = exit.address
    stop.rip = cpu.rip
    return CPU_LEAVE


class Bench:
    """A scratch machine of one vcpu, or two that take turns."""

    def __init__(self, findings: dict) -> None:
        self.findings = findings
        self.memory = Memory(FRAMES)
        self.engine = KvmEngine(KvmMachine(self.memory.address, self.memory.size, findings), None, {})
        self.engine.set_cpuid(PROCESSOR)
        ops_address: uintptr_t = self.engine.ops_address
        handle: uintptr_t = self.engine.handle
        self.ops = cython.cast(CpuOpsPtr, ops_address)
        self.handle = cython.cast(cython.p_void, handle)
        for level, table in enumerate((L4, L3, L2)):
            self.memory.write(table << 12, ((L3 + level) << 12 | 7).to_bytes(8, "little"))
        for page in range(16):
            self.memory.write((L1 << 12) + page * 8, (page << 12 | 7).to_bytes(8, "little"))
        self.memory.write(HIGH_L3 << 12, (L2 << 12 | 7).to_bytes(8, "little"))
        self.memory.write((L4 << 12) + 256 * 8, (HIGH_L3 << 12 | 7).to_bytes(8, "little"))
        self.memory.write((L4 << 12) + 257 * 8, (HIGH_L3 << 12 | 7).to_bytes(8, "little"))
        self.memory.write(ONE << 12, b"\x01")
        self.memory.write(TWO << 12, b"\x02")
        self._reserve()
        memset(cython.address(self.cpu), 0, cython.sizeof(Cpu))
        self.other = cython.NULL
        self.cpu.space = self.handle
        self.cpu.kernel_cr3 = L4 << 12
        self.cpu.user_cr3 = L4 << 12
        self.cpu.rflags = 0x202
        self.cpu.seg[1].flags = 0x00A0FB00
        self.cpu.seg[1].selector = 0xE033
        self.cpu.seg[1].limit = 0xFFFFFFFF
        self.cpu.seg[2].flags = 0x00C0F300
        self.cpu.seg[2].selector = 0xE02B
        self.cpu.seg[2].limit = 0xFFFFFFFF
        self.cpu.engine_state = self.ops.new_state(self.handle, cython.address(self.cpu))
        if self.cpu.engine_state == cython.NULL:
            self.engine.close()
            raise UserError("The KVM engine cannot be used: the host refuses to make a virtual machine.")

    def _reserve(self) -> None:
        entries: u64[16]
        i: cython.int
        memset(entries, 0, 128)
        self.ops.reserved_entries(self.handle, 0, entries)
        for i in range(16):
            if entries[i]:
                self.memory.write((L4 << 12) + (256 + i) * 8, int(entries[i]).to_bytes(8, "little"))

    def run(self, code: bytes, rax: int = 0, rdi: int = 0, ts: int = 0, breakpoint: int = 0) -> tuple:
        """Run a program until its first stop: (kind, vector, error code, address, how far rip is past its start)."""
        self.memory.write(CODE, code)
        memset(cython.address(self.stop), 0, cython.sizeof(self.stop))
        self.cpu.gpr[0] = rax
        self.cpu.gpr[7] = rdi
        self.cpu.rip = CODE
        self.cpu.ts = ts
        self.cpu.dr[0] = breakpoint
        self.cpu.dr[7] = 0x401 if breakpoint else 0x400
        self.ops.set_deadline(self.handle, monotonic_ns() + LONGEST_NS)
        with cython.nogil:
            self.ops.run(self.handle, cython.address(self.cpu), on_stop, cython.address(self.stop))
        stop = self.stop
        return stop.kind, stop.vector, stop.error, stop.address, stop.rip - CODE

    def go_back(self, kernel: bytes = IRET, process: bytes = UNDEFINED) -> tuple:
        """Let a kernel go back to a process, whose table was a kernel's before: the stop, and what the engine says."""
        frame = (1, 2, 3, 0, PROCESS, 0xE033, 0x203, FRAME + 0x800, 0xE02B)
        cpu = cython.address(self.cpu)
        self.memory.write(PROCESS_L4 << 12, bytes(self.memory.read(L4 << 12, 4096)))
        cpu.kernel_cr3 = PROCESS_L4 << 12
        cpu.shortcuts = SHORTCUT_ABSENT_VCPUS
        self.run(UNDEFINED)
        self.memory.write(PROCESS, process)
        self.memory.write(FRAME, b"".join(word.to_bytes(8, "little") for word in frame))
        self.memory.write(INFO, b"\0\1")
        cpu.kernel_cr3 = L4 << 12
        cpu.user_cr3 = PROCESS_L4 << 12
        cpu.shortcuts = SHORTCUT_RETURN | SHORTCUT_TIMER
        cpu.timer_from = 0
        cpu.vcpu_info = INFO
        cpu.process.rip, cpu.process.rflags, cpu.process.rsp = PROCESS, 0x203, FRAME + 0x800
        cpu.process.cs = cpu.seg[1]
        cpu.process.ss = cpu.seg[2]
        cpu.seg[5].base = GS_BASE
        cpu.gpr[4] = FRAME
        stop = self.run(kernel)
        return (stop, cpu.user, cpu.returned, cpu.kernel_gs, cpu.seg[5].base, cpu.gpr[0], cpu.gpr[11], cpu.gpr[1],
                cpu.gpr[4], cpu.rflags & 0xFFF, bytes(self.memory.read(INFO, 2)))  # fmt: skip

    @property
    def timer_set(self) -> int:
        return self.cpu.timer_set

    def hold(self) -> None:
        """Keep the vcpu out of guest code for a moment; from any thread."""
        with cython.nogil:
            self.ops.hold(self.handle)
            self.ops.unhold(self.handle)

    def store(self, table: int, index: int, value: int) -> None:
        """Change an entry of a table, and flush, as the hypervisor does."""
        address: uintptr_t = self.memory.address + (table << 12) + index * 8
        entry: U64Ptr = cython.cast(U64Ptr, address)
        new: u64 = value
        while not self.ops.store_pte(self.handle, entry, entry[0], new):
            pass  # the processor set a bit
        self.ops.flush_tlb(self.handle, 3)

    def release(self, table: int) -> None:
        """A frame becomes a table, or stops being one."""
        mfn: u64 = table
        self.ops.release_table(self.handle, mfn)

    def change_vcpu(self) -> None:
        """Go on with the other one of two, made when it is first wanted."""
        if self.other == cython.NULL:
            self.cpu.number = 1
            self.other = self.ops.new_state(self.handle, cython.address(self.cpu))
            if self.other == cython.NULL:
                raise UserError("The KVM engine cannot be used: the host refuses a second virtual CPU.")
        self.cpu.engine_state, self.other = self.other, self.cpu.engine_state

    @property
    def rax(self) -> int:
        return self.cpu.gpr[0]

    def cpuid(self, leaf: int, subleaf: int) -> tuple:
        """What a process is told: (eax, ebx, ecx, edx)."""
        self.cpu.gpr[6] = subleaf
        self.run(CPUID, rax=leaf)
        return tuple(int(self.cpu.gpr[i]) for i in (0, 3, 6, 2))

    @property
    def rsi(self) -> int:
        return self.cpu.gpr[6]

    @property
    def data_selector(self) -> int:
        return self.engine.raw_state(cython.cast(uintptr_t, self.cpu.engine_state))[0]

    @property
    def raw_rip(self) -> int:
        return self.engine.raw_state(cython.cast(uintptr_t, self.cpu.engine_state))[1] - CODE

    def close(self) -> None:
        if self.cpu.engine_state != cython.NULL:
            self.ops.free_state(self.handle, self.cpu.engine_state)
            self.cpu.engine_state = cython.NULL
        if self.other != cython.NULL:
            self.ops.free_state(self.handle, self.other)
            self.other = cython.NULL
        self.engine.close()
        self.memory.close()


def trial(findings: dict, action: object) -> object:
    """Do something with a scratch machine of its own."""
    bench = Bench(findings)
    try:
        return action(bench)
    finally:
        bench.close()


def reads(bench: Bench, address: int) -> tuple:
    """What a program sees at an address: (its stop, the value)."""
    return bench.run(READ_RDI, rdi=address), bench.rax


def remapped(bench: Bench) -> bool:
    """Whether it is seen when a page's entry, which was in use, leads elsewhere, or nowhere."""
    seen = [reads(bench, ONE << 12)]
    bench.store(L1, ONE, TWO << 12 | 7)
    seen.append(reads(bench, ONE << 12))
    bench.store(L1, ONE, 0)
    seen.append(reads(bench, ONE << 12)[0])
    return seen == [(PAST_READ, 1), (PAST_READ, 2), (EXIT_EXCEPTION, 14, 4, ONE << 12, 0)]


def reused(bench: Bench) -> bool:
    """Whether it is seen when an entry above, which was in use, leads to a table no more, and, after the frame was
    something else, to that again."""
    seen = []
    for page in (ONE, TWO):
        bench.release(OTHER_L1)
        bench.memory.write((OTHER_L1 << 12) + (OTHER >> 12) % 512 * 8, (page << 12 | 7).to_bytes(8, "little"))
        bench.store(L2, OTHER >> 21, OTHER_L1 << 12 | 7)
        seen.append(reads(bench, OTHER))
        bench.store(L2, OTHER >> 21, 0)
        bench.release(OTHER_L1)
        if page == ONE:
            seen.append(reads(bench, OTHER)[0])
    return seen == [(PAST_READ, 1), (EXIT_EXCEPTION, 14, 4, OTHER, 0), (PAST_READ, 2)]


def moved(bench: Bench) -> bool:
    """Whether it is seen when an entry of a higher level, which was in use, leads to another table, and back again."""
    for table, copy, index, value in (
        (L1, OTHER_L1, ONE, TWO), (L2, OTHER_L2, 0, OTHER_L1), (L3, OTHER_L3, 0, OTHER_L2)
    ):  # fmt: skip
        bench.memory.write(copy << 12, bytes(bench.memory.read(table << 12, 4096)))
        bench.memory.write((copy << 12) + index * 8, (value << 12 | 7).to_bytes(8, "little"))
    seen = [reads(bench, ONE << 12)]
    for table, below, copy in ((L2, L1, OTHER_L1), (L3, L2, OTHER_L2), (L4, L3, OTHER_L3)):
        for target in (copy, below):
            bench.store(table, 0, target << 12 | 7)
            seen.append(reads(bench, ONE << 12))
    return seen == [(PAST_READ, value) for value in (1, 2, 1, 2, 1, 2, 1)]


def remapped_among_many(bench: Bench) -> bool:
    """Whether it is seen that a page's entry leads elsewhere when more became known than the engine keeps in mind."""
    seen = [reads(bench, ONE << 12)]
    bench.store(L1, ONE, TWO << 12 | 7)
    for _ in range(MANY):
        bench.release(OTHER_L1)
    seen.append(reads(bench, ONE << 12))
    return seen == [(PAST_READ, 1), (PAST_READ, 2)]


TABLE_TESTS = (remapped, moved, reused, remapped_among_many)


def remapped_elsewhere(bench: Bench) -> int:
    """What a vcpu reads then that had used the entry, when another one has made the change known."""
    bench.run(READ_PAGE)
    bench.change_vcpu()
    bench.run(READ_PAGE)
    bench.store(L1, ONE, TWO << 12 | 7)
    bench.run(READ_PAGE)
    bench.change_vcpu()
    bench.run(READ_PAGE)
    return bench.rax


def shows_selectors(bench: Bench) -> bool:
    """Whether a selector that the guest loads is the one that it, and we, then read."""
    for selector in (0xE02B, 0, 0xE02B):
        bench.run(MOVE_DS, selector)
        if bench.data_selector != selector or bench.rsi != selector:
            return False
    return True


def returns(bench: Bench) -> bool:
    """Whether a guest's kernel can go back to its process without an exit, with everything as it should be; the process
    must not see the kernel's stubs, and what the kernel has in GS must be known."""
    undefined = (EXIT_EXCEPTION, 6, 0, 0, PROCESS - CODE)
    missing = (EXIT_EXCEPTION, 14, 4, QUEUE, PROCESS - CODE)
    null = (EXIT_SYSCALL, 0, 0, 0, len(NULL_GS + IRET))
    return (
        bench.go_back() == (undefined, 1, 1, GS_BASE, 0, 1, 2, 3, FRAME + 0x800, 0x203, b"\0\0")
        and trial(bench.findings, lambda other: other.go_back(process=READ_QUEUE))[:3] == (missing, 1, 1)
        and trial(bench.findings, lambda other: other.go_back(kernel=NULL_GS + IRET))[:5] == (null, 0, 0, 0, 0)
    )


def native_leaves(bench: Bench) -> dict:
    """What processes are told of vector state, if that is not what the table says."""
    if bench.cpuid(1, 0)[0] == PROCESSOR[1, None][0]:
        return {}
    return {(leaf, subleaf): bench.cpuid(leaf, subleaf)
            for leaf, subleaf in ((1, 0), (7, 0), *((13, i) for i in range(MAX_STATES)))}  # fmt: skip


def refuse(what: str) -> None:
    raise UserError(f"The KVM engine cannot be used: {what}.")


def probe() -> tuple:
    """Find out what kind of host this is: (findings for the engine, its capabilities, its native leaves).

    Raises:
        UserError: there is no usable /dev/kvm, or something cannot be made right here.
    """
    found = dict(SAFE)
    past_syscall = (EXIT_SYSCALL, 0, 0, 0, 2)
    if trial(found, lambda bench: bench.run(SYSCALL)) != past_syscall:
        found["user_stubs"] = 1
        if trial(found, lambda bench: bench.run(SYSCALL)) != past_syscall:
            refuse("a system call of the guest does not arrive")
    for method in TABLES:
        found.update(method)
        if all(trial(found, test) for test in TABLE_TESTS):
            break
    else:
        refuse("a change of a page table does not reach the guest")
    if trial(found, remapped_elsewhere) != 2:
        refuse("a change of a page table does not reach the guest's other virtual CPUs")
    found["rip_after_out"] = trial(found, lambda bench: (bench.run(OUT), bench.raw_rip)[1]) == 2
    found["real_selectors"] = trial(found, shows_selectors)
    found["icebp_is_fault"] = trial(found, lambda bench: bench.run(ICEBP)) == (EXIT_EXCEPTION, 1, 0, 0, 0)
    found["shortcuts"] = found["user_stubs"]
    if found["shortcuts"] and not found["real_selectors"]:
        found["returns"] = trial({**found, "returns": 1}, returns)
    bench = Bench(found)
    try:
        check_exceptions(bench)
        ts = bench.run(FLOAT, ts=1)[:2] == (EXIT_EXCEPTION, 7)
        breakpoints = bench.run(NOPS, breakpoint=CODE + 2) == (EXIT_EXCEPTION, 1, 0, 1, 2)
        leaves = native_leaves(bench)
        low = bench.run(READ_RDI, rdi=HIGH_256 + 0x4000) == PAST_READ and bench.rax == 1
        if not low and bench.run(READ_RDI, rdi=HIGH_257 + 0x4000) != PAST_READ:
            refuse("neither L4 slot 256 nor 257 can be shown to the guest")
    finally:
        bench.close()
    capabilities = Capabilities(
        parallel_vcpus=True,
        atomics=True,
        deterministic=False,
        honours_ts=ts,
        honours_debug_registers=breakpoints,
        honours_slot_256=low,
    )
    return found, capabilities, leaves


def check_exceptions(bench: Bench) -> None:
    """One exception of each kind must arrive with its vector, error code, address and instruction pointer."""
    for name, code, rdi, expected in (
        ("a page fault", READ_RDI, UNMAPPED, (EXIT_EXCEPTION, 14, 4, UNMAPPED, 0)),
        ("a privileged instruction", HALT, 0, (EXIT_EXCEPTION, 13, 0, 0, 0)),
        ("an undefined instruction", UNDEFINED, 0, (EXIT_EXCEPTION, 6, 0, 0, 0)),
        ("a software interrupt", INTERRUPT, 0, (EXIT_SOFTINT, 0x20, 0, 0, 2)),
        ("a port access", OUT, 0, (EXIT_EXCEPTION, 13, 0, 0, 0)),
    ):
        if bench.run(code, rdi=rdi) != expected:
            refuse(f"{name} of the guest does not arrive as it should")
