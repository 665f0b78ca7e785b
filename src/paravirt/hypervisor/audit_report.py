"""What an audit found, in words."""

from __future__ import annotations

from dataclasses import dataclass

from paravirt.abi.xen import DOMID_INVALID, DOMID_IO, DOMID_XEN

TYPE_NAMES = {
    0: "no type",
    1: "L1 table",
    2: "L2 table",
    3: "L3 table",
    4: "L4 table",
    5: "segment descriptors",
    7: "writable",
}
FLAG_NAMES = (
    (1, "allocated"),
    (2, "pinned"),
    (4, "validated"),
    (8, "hypervisor's"),
    (16, "read-only"),
    (32, "part way"),
    (64, "holding one more"),
    (128, "in the hypervisor's use"),
)
ENTRY_BITS = (
    (0, "P"),
    (1, "RW"),
    (2, "US"),
    (3, "PWT"),
    (4, "PCD"),
    (5, "A"),
    (6, "D"),
    (7, "PS/PAT"),
    (8, "G"),
    (52, "kernel"),
    (63, "NX"),
)


def owner_name(domid: int) -> str:
    """Who a frame belongs to, in words."""
    names = {DOMID_INVALID: "free", DOMID_IO: "no memory", DOMID_XEN: "the hypervisor's"}
    return names.get(domid, f"domain {domid}'s")


def type_name(type: int) -> str:
    """A frame's type in words."""
    return TYPE_NAMES.get(type, f"type {type}")


def describe_flags(flags: int) -> str:
    """The flags of a frame in words."""
    names = [name for bit, name in FLAG_NAMES if flags & bit]
    rest = flags & ~sum(bit for bit, _ in FLAG_NAMES)
    return "|".join(names + ([f"{rest:#x}"] if rest else [])) or "no flags"


def describe_entry(value: int) -> str:
    """A page-table entry, decoded: the frame and the names of its bits."""
    names = [name for bit, name in ENTRY_BITS if value >> bit & 1]
    return f"{value:016x} (frame {(value >> 12) & 0xFF_FFFF_FFFF:#x}, {' '.join(names) or 'no bits'})"


def describe_frame(mfn: int, info: tuple[int, int, int, int, int] | None) -> str:
    """A frame in words: whose it is, as what it is used, and its counts, from ``Host.frame_info``; None: no frame."""
    if info is None:
        return f"frame {mfn:#x}: there is none of this number"
    owner, type, uses, references, flags = info
    return (
        f"frame {mfn:#x}: {owner_name(owner)}, {type_name(type)}, {uses} uses, {references} references, "
        f"{describe_flags(flags)}"
    )


@dataclass(frozen=True)
class Finding:
    """One mistake.

    Attributes:
        rule: which rule is broken.
        text: how.
        mfn: the frame that it is about, if it is about one.
        details: that frame's record and who refers to it, a line each.
    """

    rule: str
    text: str
    mfn: int | None = None
    details: tuple[str, ...] = ()

    def __str__(self) -> str:
        where = f" (frame {self.mfn:#x})" if self.mfn is not None else ""
        return "\n".join([f"{self.rule}{where}: {self.text}", *("    " + line for line in self.details)])


@dataclass(frozen=True)
class AuditReport:
    """What an audit found.

    Attributes:
        findings: the mistakes, the first of each rule's.
        counts: how many mistakes there are by rule.
        nr_frames: frames that were looked at.
        references: references that were found.
    """

    findings: tuple[Finding, ...]
    counts: dict[str, int]
    nr_frames: int
    references: int

    @property
    def clean(self) -> bool:
        """Whether everything is as it must be."""
        return not self.findings

    @property
    def rules(self) -> set[str]:
        """The rules that are broken."""
        return set(self.counts)

    def __str__(self) -> str:
        if self.clean:
            return f"Audit of {self.nr_frames} frames: {self.references} references, all as they must be."
        lines = [f"Audit of {self.nr_frames} frames: {sum(self.counts.values())} mistakes."]
        lines += [str(finding) for finding in self.findings]
        for rule, count in self.counts.items():
            shown = sum(finding.rule == rule for finding in self.findings)
            if count > shown:
                lines.append(f"{rule}: {count - shown} more")
        return "\n".join(lines)
