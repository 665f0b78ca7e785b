"""The report on a domain that crashed: what happened, where, and what led there."""

from __future__ import annotations

from paravirt.domain0.builder import KernelImage
from paravirt.hypervisor.audit_report import describe_entry, describe_frame
from paravirt.hypervisor.hypercalls.registry import HypercallError
from paravirt.hypervisor.refusal_report import describe_refusal
from paravirt.hypervisor.views import Domain, Host, Vcpu

PRESENT = 1
MFN_MASK = 0xFF_FFFF_FFFF
STACK_WORDS = 32
WORDS_PER_LINE = 4


def crash_report(domain: Domain, image: KernelImage, console_tail: str) -> str:
    """A readable account: the reason; each vcpu's registers, last refusal and stack; the console's last lines."""
    lines = [
        f"Domain {domain.domid} ({domain.name}) crashed: {domain.crash_reason or 'the guest says so itself'}."
    ]
    for vcpu in domain.vcpus:
        if vcpu.is_up:
            lines.extend(_vcpu_lines(vcpu, image))
    if console_tail:
        lines.append("The console's last lines:")
        lines.extend("  " + line for line in console_tail.splitlines()[-12:])
    return "\n".join(lines) + "\n"


# General registers in the order in which a crash shows them; rsp stands with the stack.
_SHOWN = (*("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp"), *(f"r{number}" for number in range(8, 16)))


def _where(address: int, image: KernelImage) -> str:
    found = image.symbol(address)
    return f"{address:016x}" + (f" ({found[0]}+{found[1]:#x})" if found else "")


def _vcpu_lines(vcpu: Vcpu, image: KernelImage) -> list[str]:
    registers = vcpu.registers
    mode = "user" if registers["user_mode"] else "kernel"
    lines = [
        f"vcpu {vcpu.id}, {mode} mode, rip {registers['cs']:04x}:{_where(registers['rip'], image)}",
        f"  rsp {registers['ss']:04x}:{registers['rsp']:016x}  rflags {registers['rflags']:08x}  "
        f"cr2 {vcpu.cr2:016x}  cr3 {registers['cr3']:016x}",
    ]
    for start in range(0, len(_SHOWN), 4):
        lines.append(
            "  " + "  ".join(f"{name:>3} {registers[name]:016x}" for name in _SHOWN[start : start + 4])
        )
    lines.append(f"  fs base {registers['fs_base']:016x}  gs base {registers['gs_base']:016x}")
    host = vcpu.domain.host
    lines.append(f"  page table: {_frame(host, registers['cr3'] >> 12)}")
    for name, address in (("rip", registers["rip"]), ("rsp", registers["rsp"]), ("cr2", vcpu.cr2)):
        lines.extend(_mapping(host, registers["cr3"] >> 12, name, address))
    refusal = vcpu.refusal
    if refusal is not None:
        lines.extend(describe_refusal(refusal, lambda address: _where(address, image)))
    return lines + _stack_lines(registers["rsp"], _stack(vcpu, registers["rsp"]), image)


def _frame(host: Host, mfn: int) -> str:
    """A frame in words: whose it is, as what it is used, and its counts."""
    return describe_frame(mfn, host.frame_info(mfn))


def _mapping(host: Host, table: int, name: str, address: int) -> list[str]:
    """How the page tables map an address: the entry in which the walk ends, and the frame that it names, or is in."""
    for level in (4, 3, 2, 1):
        index = address >> (3 + 9 * level) & 511
        entry = int.from_bytes(host.memory.read((table << 12) + 8 * index, 8), "little")
        below = entry >> 12 & MFN_MASK
        if not entry & PRESENT or below >= host.nr_frames:
            return [f"  {name}: not mapped by L{level} entry {describe_entry(entry)}", f"    in {_frame(host, table)}"]
        table = below
    return [f"  {name}: mapped by L1 entry {describe_entry(entry)}", f"    to {_frame(host, table)}"]


def _stack_lines(address: int, words: list[int], image: KernelImage) -> list[str]:
    """The stack from ``address`` upwards, and the words on it that are addresses within the kernel."""
    if not words:
        return ["  stack: not mapped"]
    lines = ["  stack:"]
    for start in range(0, len(words), WORDS_PER_LINE):
        shown = " ".join(f"{word:016x}" for word in words[start : start + WORDS_PER_LINE])
        lines.append(f"    {address + 8 * start:016x}: {shown}")
    known = [f"    {_where(word, image)}" for word in words if image.symbol(word)]
    return lines + (["  symbols on it:", *known] if known else [])


def _stack(vcpu: Vcpu, address: int) -> list[int]:
    words: list[int] = []
    for i in range(STACK_WORDS):
        try:
            words.append(int.from_bytes(vcpu.copy_from_guest(address + 8 * i, 8), "little"))
        except HypercallError:
            break
    return words
