"""From a file to a kernel that can be placed in memory, or to one sentence that says why not."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from paravirt.abi import features
from paravirt.domain0.builder import bsdsyms, bzimage, payload
from paravirt.domain0.builder.elf import PT_LOAD, ElfFile, ProgramHeader, is_elf
from paravirt.domain0.builder.notes import FEATURE_NAMES, XenNotes, read
from paravirt.domain0.builder.symbols import SymbolTable
from paravirt.errors import UserError

PAGE_SIZE: Final = 4096
_U64: Final = 1 << 64
_RWX: Final = 7
#: gzip around a bzImage around xz around an ELF file: deeper than that is a trick.
_MAX_WRAPPINGS: Final = 4

#: Required features that no unprivileged paravirtual domain gets. Not among them is writable_page_tables,
#: which Linux has always marked as required and no 64-bit Xen grants: Xen only compares the list with the
#: kernel's own.
_REFUSED_FEATURES: Final[dict[int, str]] = {
    features.XENFEAT_dom0: "to be the control domain",
    features.XENFEAT_auto_translated_physmap: "memory that Xen translates for it (auto_translated_physmap)",
    features.XENFEAT_supervisor_mode_kernel: "to run in supervisor mode (supervisor_mode_kernel)",
    features.XENFEAT_hvm_callback_vector: "a hardware-virtualised domain (hvm_callback_vector)",
}


@dataclass(frozen=True)
class Segment:
    """One piece of the kernel: ``data`` goes to ``vaddr``, zeros follow up to ``memsz`` bytes.

    ``paddr`` is the ELF file's p_paddr; ``vaddr`` is where the initial mapping shows it.
    """

    vaddr: int
    paddr: int
    data: memoryview
    memsz: int

    @property
    def end(self) -> int:
        """The address behind its last byte."""
        return self.vaddr + self.memsz


@dataclass(frozen=True)
class KernelImage:
    """A 64-bit paravirtual kernel, unpacked, checked, ready to be laid out.

    Attributes:
        segments: what to load; they do not overlap.
        virt_start, virt_end: the addresses from the first loaded byte to behind the last.
        virt_base: the address of pseudo-physical 0.
        paddr_offset: subtracted from p_paddr before ``virt_base`` is added.
        entry: where vcpu 0 starts.
        init_p2m: where the list of frames is to be mapped, or None: in the initial mapping.
        hypercall_page: its address, or None when the kernel has none.
        mod_start_pfn: the ramdisk may stay unmapped.
        notes: everything that the kernel said.
        symbols: for crash reports; often empty, since distributions strip their kernels.
    """

    segments: tuple[Segment, ...]
    virt_start: int
    virt_end: int
    virt_base: int
    paddr_offset: int
    entry: int
    init_p2m: int | None
    hypercall_page: int | None
    mod_start_pfn: bool
    notes: XenNotes
    symbols: SymbolTable

    def symbol(self, address: int) -> tuple[str, int] | None:
        """Name an address within the kernel: the nearest symbol below it, and the distance in bytes."""
        if not self.virt_start <= address < self.virt_end:
            return None
        return self.symbols.lookup(address)

    @property
    def guest_os(self) -> str:
        """The kernel's name for itself, such as ``linux``."""
        return self.notes.guest_os

    @property
    def loader(self) -> str:
        """The loader that the kernel asks for: ``generic``, or empty."""
        return self.notes.loader

    @property
    def xen_version(self) -> str:
        """The interface that the kernel was built for: ``xen-3.0``."""
        return self.notes.xen_version

    @property
    def suspend_cancel(self) -> bool:
        """Whether the kernel understands a suspend hypercall that returns 1."""
        return self.notes.suspend_cancel


def unwrap(data: bytes, *, limit: int = payload.DEFAULT_LIMIT) -> bytes | memoryview:
    """Take the ELF file out of whatever is around it: a compression, a bzImage, or both.

    Args:
        data: the kernel file.
        limit: the most bytes that any layer may unpack to.

    Raises:
        UserError: not a kernel, or one that is damaged.
    """
    if not data:
        raise UserError("The kernel file is empty.")
    inner: bytes | memoryview = data
    for _ in range(_MAX_WRAPPINGS):
        if is_elf(inner):
            return inner
        if bzimage.is_bzimage(inner):
            inner = bzimage.payload(inner)
        elif payload.identify(inner) is not None:
            inner = payload.decompress(inner, limit=limit)
        else:
            break
    where = "The kernel file" if inner is data else "What is packed in the kernel file"
    raise UserError(
        f"{where} is neither an ELF file, nor a Linux bzImage, nor compressed in a way known here."
    )


def parse_kernel(data: bytes, *, limit: int = payload.DEFAULT_LIMIT) -> KernelImage:
    """Read a kernel: an ELF file with Xen notes, bare, compressed, or in a bzImage.

    Args:
        data: the kernel file, whole.
        limit: the most bytes that it may unpack to.

    Raises:
        UserError: one sentence on what the file is and why it cannot run.
    """
    elf = ElfFile(unwrap(data, limit=limit))
    notes = read(elf)
    if notes is None:
        raise UserError("The kernel is an ELF file without Xen notes, so it was not built to run on Xen.")
    _check_notes(notes)
    virt_base = notes.virt_base or 0
    paddr_offset = notes.paddr_offset
    if paddr_offset is None:
        # Kernels that only have the old section put virtual addresses into p_paddr.
        paddr_offset = virt_base if notes.legacy else 0
    segments = _load_segments(elf, virt_base - paddr_offset)
    if notes.bsd_symtab:
        end = max(s.paddr + s.memsz for s in segments)
        paddr = -(-end // bsdsyms.ALIGN) * bsdsyms.ALIGN
        block = memoryview(bsdsyms.symbol_block(elf))
        segments.append(Segment((paddr + virt_base - paddr_offset) % _U64, paddr, block, len(block)))
    image = KernelImage(
        segments=tuple(segments),
        virt_start=min(segments, key=lambda s: s.paddr).vaddr,
        virt_end=max(segments, key=lambda s: s.paddr + s.memsz).end,
        virt_base=virt_base,
        paddr_offset=paddr_offset,
        entry=elf.entry if notes.entry is None else notes.entry,
        init_p2m=_usable_p2m(notes.init_p2m, virt_base),
        hypercall_page=notes.hypercall_page,
        mod_start_pfn=notes.mod_start_pfn,
        notes=notes,
        symbols=SymbolTable.of(elf),
    )
    _check_addresses(image)
    return image


def _load_segments(elf: ElfFile, shift: int) -> list[Segment]:
    """The loadable segments, their addresses moved by ``shift`` from physical to virtual."""
    loadable = [s for s in elf.segments if s.type == PT_LOAD and s.flags & _RWX]
    if not any(s.memsz for s in loadable):
        raise UserError("The kernel is an ELF file with nothing to load.")
    _check_segments(loadable, len(elf.data))
    return [
        Segment((s.paddr + shift) % _U64, s.paddr, elf.slice(s.offset, s.filesz, "segment"), s.memsz)
        for s in loadable
        if s.memsz
    ]


def _usable_p2m(address: int | None, virt_base: int) -> int | None:
    """Xen heeds INIT_P2M only when it is page-aligned and below the kernel."""
    if address is None or address >= virt_base or address % PAGE_SIZE:
        return None
    return address


def _check_notes(notes: XenNotes) -> None:
    """Refuse kernels for another kind of guest or another Xen."""
    if notes.entry is None and notes.virt_base is None:
        if notes.phys32_entry is not None:
            raise UserError(
                "The kernel can start only as a PVH or HVM guest, not as a paravirtual one; "
                "paravirt does not support that yet."
            )
        if notes.guest_os.startswith("linux") and not notes.legacy:
            raise UserError(
                "The kernel is a Linux built without CONFIG_XEN_PV, so it can run only in a "
                "hardware-virtualised (HVM) domain; paravirt does not support that yet."
            )
    if not notes.loader.startswith("generic") and not notes.guest_os.startswith("linux"):
        raise UserError(
            f"The kernel asks for the loader {notes.loader[:40]!r} and is {notes.guest_os[:40]!r}; "
            "Xen loads only Linux and kernels for the loader 'generic'."
        )
    if not notes.xen_version.startswith("xen-3.0"):
        raise UserError(
            f"The kernel is built for the Xen interface {notes.xen_version[:40]!r}, not for 'xen-3.0'."
        )
    for bit, meaning in _REFUSED_FEATURES.items():
        if notes.features_required & 1 << bit:
            raise UserError(
                f"The kernel requires {meaning}, which an unprivileged paravirtual domain cannot have."
            )
    if notes.paddr_offset is not None and notes.virt_base is None:
        raise UserError(
            "The kernel's notes contradict each other: PADDR_OFFSET is set, but VIRT_BASE is not."
        )


def _check_segments(loadable: list[ProgramHeader], file_size: int) -> None:
    for segment in loadable:
        if segment.filesz > segment.memsz or segment.paddr + segment.memsz > _U64:
            raise UserError("The kernel is a damaged ELF file: one of its segments has an impossible size.")
    # Xen would load segments that overlap in memory or in the file; no real kernel has them, and refusing
    # them bounds the time that loading can take.
    ordered = sorted(loadable, key=lambda segment: segment.paddr)
    for below, above in pairwise(ordered):
        if below.paddr + below.memsz > above.paddr:
            raise UserError("The kernel is a damaged ELF file: its segments overlap in memory.")
    if sum(segment.filesz for segment in loadable) > file_size:
        raise UserError("The kernel is a damaged ELF file: its segments are longer together than the file.")


def _check_addresses(image: KernelImage) -> None:
    """What Xen's loader checks: the kernel lies above its base, and its entry within it."""
    if not image.virt_base <= image.virt_start < image.virt_end <= _U64:
        raise UserError("The kernel is a damaged ELF file: it does not lie above its own VIRT_BASE.")
    if not image.virt_start <= image.entry <= image.virt_end:
        raise UserError("The kernel is a damaged ELF file: its entry point is outside of it.")
    if image.virt_start % PAGE_SIZE or image.virt_base % PAGE_SIZE:
        raise UserError("The kernel is a damaged ELF file: it does not start on a page boundary.")
    page = image.hypercall_page
    if page is not None and not image.virt_base <= page < image.virt_end:
        raise UserError("The kernel is a damaged ELF file: its hypercall page is outside of it.")


def feature_text(mask: int) -> str:
    """Name the features of a mask, as a kernel would write them."""
    return "|".join(name for name, bit in FEATURE_NAMES.items() if mask & 1 << bit)
