"""What a kernel says about itself to Xen: ELF notes, or the older ``__xen_guest`` string.

The notes are those of the public header ``xen/elfnote.h``. Where they are looked for, in which order, and
what an absent one means follows Xen's libelf (xen/common/libelf/libelf-dominfo.c of 4.17): note segments
first, note sections only where those hold no Xen note, the ``__xen_guest`` section last.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import reduce
from typing import Any, Final

from paravirt.abi import elfnote, features
from paravirt.domain0.builder.elf import ElfFile
from paravirt.errors import UserError

_OWNER: Final = b"Xen"
_LEGACY_SECTION: Final = b"__xen_guest"
_PAGE_SHIFT: Final = 12
_U64: Final = (1 << 64) - 1
_NUMBER_SIZES: Final = (1, 2, 4, 8)

#: The features that a kernel may name in its FEATURES text.
FEATURE_NAMES: Final[dict[str, int]] = {
    name: getattr(features, f"XENFEAT_{name}")
    for name in (
        "writable_page_tables",
        "writable_descriptor_tables",
        "auto_translated_physmap",
        "supervisor_mode_kernel",
        "pae_pgdir_above_4gb",
        "hvm_callback_vector",
        "dom0",
    )
}


@dataclass(frozen=True)
class XenNotes:
    """A kernel's statements; None, 0 or "" where it made none. Addresses are virtual unless their name says
    else.

    Attributes:
        legacy: they come from a ``__xen_guest`` section.
        entry: where vcpu 0 starts.
        hypercall_page: the page that the hypervisor fills with call stubs.
        virt_base: the address at which pseudo-physical address 0 is mapped.
        paddr_offset: what the ELF file's p_paddr count from, to be subtracted.
        init_p2m: where to map the list of frames, outside the initial mapping.
        mod_start_pfn: the ramdisk need not be mapped, its first frame number is enough.
        phys32_entry: the physical 32-bit entry of the PVH start, another kind of guest.
        l1_mfn_valid: the kernel gave a mask and value by which a valid L1 entry is known.
        features_supported, features_required: bit masks by XENFEAT_* number.
    """

    legacy: bool = False
    entry: int | None = None
    hypercall_page: int | None = None
    virt_base: int | None = None
    paddr_offset: int | None = None
    init_p2m: int | None = None
    mod_start_pfn: bool = False
    phys32_entry: int | None = None
    hv_start_low: int | None = None
    l1_mfn_valid: bool = False
    loader: str = ""
    guest_os: str = ""
    guest_version: str = ""
    xen_version: str = ""
    pae_mode: str = ""
    bsd_symtab: bool = False
    suspend_cancel: bool = False
    features_supported: int = 0
    features_required: int = 0


_TEXTS: Final = {
    elfnote.XEN_ELFNOTE_XEN_VERSION: "xen_version",
    elfnote.XEN_ELFNOTE_GUEST_OS: "guest_os",
    elfnote.XEN_ELFNOTE_GUEST_VERSION: "guest_version",
    elfnote.XEN_ELFNOTE_LOADER: "loader",
    elfnote.XEN_ELFNOTE_PAE_MODE: "pae_mode",
}
_NUMBERS: Final = {
    elfnote.XEN_ELFNOTE_ENTRY: "entry",
    elfnote.XEN_ELFNOTE_HYPERCALL_PAGE: "hypercall_page",
    elfnote.XEN_ELFNOTE_VIRT_BASE: "virt_base",
    elfnote.XEN_ELFNOTE_INIT_P2M: "init_p2m",
    elfnote.XEN_ELFNOTE_PADDR_OFFSET: "paddr_offset",
    elfnote.XEN_ELFNOTE_HV_START_LOW: "hv_start_low",
    elfnote.XEN_ELFNOTE_PHYS32_ENTRY: "phys32_entry",
}
_FLAGS: Final = {
    elfnote.XEN_ELFNOTE_MOD_START_PFN: "mod_start_pfn",
    elfnote.XEN_ELFNOTE_SUSPEND_CANCEL: "suspend_cancel",
}


def read(elf: ElfFile) -> XenNotes | None:
    """Collect what the kernel says; None when it says nothing to Xen at all.

    Raises:
        UserError: a note is malformed, or a feature is required whose name nobody knows.
    """
    for source in (elf.segment_notes, elf.section_notes):
        ours = [note for note in source() if note.name == _OWNER]
        if ours:
            return reduce(lambda found, note: _add(found, note.type, note.desc), ours, XenNotes())
    section = elf.section_named(_LEGACY_SECTION)
    return None if section is None else parse_legacy(bytes(elf.contents(section)))


def _add(notes: XenNotes, kind: int, desc: bytes) -> XenNotes:
    """``notes`` with one more statement; kinds that concern nobody here are ignored, as in Xen."""
    if kind in _TEXTS:
        return _with(notes, _TEXTS[kind], _text(desc))
    if kind in _NUMBERS:
        return _with(notes, _NUMBERS[kind], _number(kind, desc))
    if kind in _FLAGS:
        return _with(notes, _FLAGS[kind], bool(_number(kind, desc)))
    if kind == elfnote.XEN_ELFNOTE_BSD_SYMTAB:
        return replace(notes, bsd_symtab=_text(desc) == "yes")
    if kind == elfnote.XEN_ELFNOTE_L1_MFN_VALID:
        return replace(notes, l1_mfn_valid=True)
    if kind == elfnote.XEN_ELFNOTE_FEATURES:
        return _with_features(notes, _text(desc))
    if kind == elfnote.XEN_ELFNOTE_SUPPORTED_FEATURES:
        word = int.from_bytes(desc[:4], "little")
        return replace(notes, features_supported=notes.features_supported | word)
    return notes


def _with(notes: XenNotes, field: str, value: str | int) -> XenNotes:
    """``notes`` with one field set, whose name comes from the tables above."""
    changes: dict[str, Any] = {field: value}
    return replace(notes, **changes)


def _text(desc: bytes) -> str:
    """A note's text: up to its NUL, or all of it (Linux does not terminate FEATURES)."""
    return desc.split(b"\0")[0].decode("latin-1")


def _number(kind: int, desc: bytes) -> int:
    if len(desc) not in _NUMBER_SIZES:
        raise UserError(
            f"The kernel is damaged: its Xen note {kind} is {len(desc)} bytes long, not a number."
        )
    return int.from_bytes(desc, "little")


def _with_features(notes: XenNotes, text: str) -> XenNotes:
    """Read ``name|name|!name``: what the kernel can use, and with ``!`` what it insists on."""
    supported, required = notes.features_supported, notes.features_required
    for word in text.split("|"):
        name = word.removeprefix("!")
        bit = FEATURE_NAMES.get(name)
        if bit is not None:
            supported |= 1 << bit
            required |= (1 << bit) if word.startswith("!") else 0
        elif word.startswith("!"):
            raise UserError(
                f"The kernel requires the Xen feature {name[:40]!r}, which Xen 4.17 does not know."
            )
    return replace(notes, features_supported=supported, features_required=required)


def parse_legacy(data: bytes) -> XenNotes:
    """Read a ``__xen_guest`` section: ``KEY=VALUE,KEY=VALUE`` up to a NUL (the form of Xen 3.0's kernels).

    HYPERCALL_PAGE counts pages from VIRT_BASE there; the result holds the address.

    Raises:
        UserError: a number is none, or a feature is required whose name nobody knows.
    """
    values: dict[str, str] = {}
    notes = XenNotes(legacy=True)
    for item in _text(data).split(","):
        key, _, value = item.partition("=")
        if key == "FEATURES":
            notes = _with_features(notes, value)
        else:
            values[key] = value
    virt_base = _legacy_number(values, "VIRT_BASE")
    page = _legacy_number(values, "HYPERCALL_PAGE")
    if page is not None:
        page = ((page << _PAGE_SHIFT) + (virt_base or 0)) & _U64
    return replace(
        notes,
        entry=_legacy_number(values, "VIRT_ENTRY"),
        hypercall_page=page,
        virt_base=virt_base,
        paddr_offset=_legacy_number(values, "ELF_PADDR_OFFSET"),
        loader=values.get("LOADER", ""),
        guest_os=values.get("GUEST_OS", ""),
        guest_version=values.get("GUEST_VER", ""),
        xen_version=values.get("XEN_VER", ""),
        pae_mode=values.get("PAE", ""),
        bsd_symtab="BSD_SYMTAB" in values,
    )


def _legacy_number(values: dict[str, str], key: str) -> int | None:
    """A number in C's notation: 0x for hexadecimal, a leading 0 for octal."""
    text = values.get(key)
    if text is None:
        return None
    digits = text.strip()
    octal = len(digits) > 1 and digits[0] == "0" and digits[1].isdigit()
    try:
        number = int(digits, 8 if octal else 0)
    except ValueError:
        number = -1
    if not 0 <= number <= _U64:
        raise UserError(f"The kernel is damaged: {key} in its __xen_guest section is {text[:40]!r}.")
    return number
