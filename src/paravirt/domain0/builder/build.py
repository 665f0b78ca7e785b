"""Put a kernel and its start of day into a new domain's memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from paravirt.abi.xen import MAX_GUEST_CMDLINE, SIF_MOD_START_PFN, StartInfo
from paravirt.domain0.builder.image import PAGE_SIZE, KernelImage, parse_kernel
from paravirt.domain0.builder.layout import Layout, compute_layout
from paravirt.domain0.builder.pagetables import build_page_tables
from paravirt.errors import HypervisorBug, UserError

_MAGIC: Final = b"xen-3.0-x86_64"


class BuildTarget(Protocol):
    """A new domain, as the control domain sees it: it has memory, all of it zero, and has never run.

    Attributes:
        domid: its number.
        p2m: machine frame by pseudo-physical frame, one for every page of the domain.
        shared_info_mfn: the machine frame of its shared_info, whose contents (every ``evtchn_upcall_mask``
            set) are not the builder's affair.
    """

    @property
    def domid(self) -> int: ...

    @property
    def p2m(self) -> NDArray[np.uint64]: ...

    @property
    def shared_info_mfn(self) -> int: ...

    def write(self, pfn: int, offset: int, data: bytes | memoryview) -> None:
        """Store ``data`` at byte ``offset`` from the start of frame ``pfn``.

        The offset may exceed a page and the data may span many: frames are counted pseudo-physically.
        """

    def set_hypercall_page(self, pfn: int) -> None:
        """Fill a frame with hypercall stubs (XEN_DOMCTL_hypercall_init)."""

    def pin_l4(self, pfn: int) -> None:
        """Validate and pin a top-level page table on behalf of the domain (MMUEXT_PIN_L4_TABLE)."""

    def set_context(self, *, rip: int, rsp: int, rsi: int, cr3_pfn: int) -> None:
        """Set up vcpu 0 (XEN_DOMCTL_setvcpucontext).

        Kernel mode, flat kernel selectors, kernel_ss:kernel_sp the same as the stack, rflags.IF set,
        everything that is not named zero; ``cr3_pfn`` is the frame of the top-level page table.
        """


@dataclass(frozen=True)
class BuiltDomain:
    """What the control domain has to know of the domain it built.

    Attributes:
        console_pfn, console_mfn: the console ring.
        store_pfn, store_mfn: the xenstore ring.
        image: the kernel, with its symbols.
        layout: where everything is.
    """

    console_pfn: int
    store_pfn: int
    console_mfn: int
    store_mfn: int
    image: KernelImage
    layout: Layout


def build_domain(
    target: BuildTarget,
    kernel: bytes | KernelImage,
    ramdisk: bytes | None,
    cmdline: str,
    *,
    console_port: int,
    store_port: int,
    nr_pages: int,
) -> BuiltDomain:
    """Build a paravirtual domain that can be unpaused.

    Args:
        target: the new domain.
        kernel: the kernel file's bytes, or the image that :func:`parse_kernel` made of them.
        ramdisk: handed to the kernel as it is, compressed or not; None for none.
        cmdline: the kernel's command line, at most 1023 bytes.
        console_port, store_port: the domain's own ends of the two event channels.
        nr_pages: the domain's size in frames.

    Raises:
        UserError: the kernel cannot run here, the command line is too long, the memory too small, or the
        ramdisk
            empty. Nothing has been written then.
        HypervisorBug: the target has fewer frames than ``nr_pages``.
    """
    line = _encode_cmdline(cmdline)
    if ramdisk is not None and not ramdisk:
        raise UserError("The ramdisk file is empty.")
    image = kernel if isinstance(kernel, KernelImage) else parse_kernel(kernel)
    layout = compute_layout(image, nr_pages, len(ramdisk or b""))
    p2m = target.p2m
    if len(p2m) < nr_pages:
        raise HypervisorBug(f"domain {target.domid} has {len(p2m)} frames, but {nr_pages} were to be built")

    for segment in image.segments:
        # What follows the data up to memsz is zero, as the domain's memory still is.
        target.write(0, segment.vaddr - image.virt_base, segment.data)
    if ramdisk is not None and layout.ramdisk is not None:
        target.write(layout.ramdisk.pfn, 0, ramdisk)
    target.write(layout.p2m.pfn, 0, p2m[:nr_pages].astype("<u8").tobytes())
    for pfn, tables in build_page_tables(layout, p2m):
        if len(tables):
            target.write(pfn, 0, tables.astype("<u8").tobytes())
    info = _start_info(target, layout, line, console_port, store_port)
    target.write(layout.start_info_pfn, 0, bytes(info))
    if image.hypercall_page is not None:
        target.set_hypercall_page(layout.pfn(image.hypercall_page))
    target.pin_l4(layout.page_tables.pfn)
    target.set_context(
        rip=image.entry,
        rsp=layout.virt(layout.boot_stack_pfn + 1),
        rsi=layout.virt(layout.start_info_pfn),
        cr3_pfn=layout.page_tables.pfn,
    )
    return BuiltDomain(
        console_pfn=layout.console_pfn,
        store_pfn=layout.store_pfn,
        console_mfn=int(p2m[layout.console_pfn]),
        store_mfn=int(p2m[layout.store_pfn]),
        image=image,
        layout=layout,
    )


def _encode_cmdline(cmdline: str) -> bytes:
    line = cmdline.encode("utf-8", "surrogateescape")
    if b"\0" in line:
        raise UserError("The kernel command line contains a NUL character.")
    if len(line) >= MAX_GUEST_CMDLINE:
        raise UserError(
            f"The kernel command line has {len(line)} bytes, but a paravirtual guest gets at most "
            f"{MAX_GUEST_CMDLINE - 1}."
        )
    return line


def _start_info(
    target: BuildTarget, layout: Layout, line: bytes, console_port: int, store_port: int
) -> StartInfo:
    """The start_info page (public header ``xen/xen.h``), filled as Xen's builder does."""
    info = StartInfo()
    info.magic = _MAGIC
    info.nr_pages = layout.nr_pages
    info.shared_info = target.shared_info_mfn * PAGE_SIZE
    info.flags = 0  # as libxl has it; only other users of Xen's builder set SIF_VIRT_P2M_4TOOLS
    info.store_mfn = int(target.p2m[layout.store_pfn])
    info.store_evtchn = store_port
    info.console.domU.mfn = int(target.p2m[layout.console_pfn])
    info.console.domU.evtchn = console_port
    info.pt_base = layout.virt(layout.page_tables.pfn)
    info.nr_pt_frames = layout.page_tables.pages
    info.mfn_list = layout.p2m_virt
    if layout.p2m_frames is not None:
        info.first_p2m_pfn = layout.p2m_frames.pfn
        info.nr_p2m_frames = layout.p2m_frames.pages
    if layout.ramdisk is not None:
        if not layout.ramdisk_mapped:
            info.flags |= SIF_MOD_START_PFN
        info.mod_start = layout.mod_start
        # Xen's builder reports whole pages, zeros behind the file included.
        info.mod_len = layout.ramdisk.pages * PAGE_SIZE
    info.cmd_line = line
    return info
