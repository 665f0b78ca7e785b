"""Kernels that others built: paravirt's own, Debian's, and GRUB."""

import pytest

from paravirt.domain0.builder import KernelImage, compute_layout, parse_kernel
from paravirt.errors import UserError
from paravirt.guestkernels.catalogue import obtain


def load(name: str) -> KernelImage:
    try:
        path = obtain(name).path
    except UserError as why:
        pytest.skip(str(why))
    return parse_kernel(path.read_bytes())


def test_hello_has_symbols() -> None:
    image = load("tiny")
    assert image.loader == "generic"
    named = image.symbol(image.entry)
    assert named is not None and named[1] == 0
    assert compute_layout(image, 1024).mappings[0].frames.pages == 1024


@pytest.mark.network
@pytest.mark.parametrize("name", ["debian-cloud", "debian", "debian-backports"])
def test_debian_kernels_are_placed_as_linux_expects(name: str) -> None:
    image = load(name)
    assert (image.guest_os, image.loader, image.xen_version) == ("linux", "generic", "xen-3.0")
    assert image.mod_start_pfn and image.suspend_cancel
    assert image.init_p2m == 1 << 39
    layout = compute_layout(image, 512 * 256, 10 << 20)
    assert layout.kernel.pfn == 0x1000  # CONFIG_PHYSICAL_START
    # Linux complains of writable and executable pages when the mapping goes further than this.
    content = layout.virt(layout.boot_stack_pfn + 1) + (512 << 10)
    assert layout.virt_end == -(-content // (4 << 20)) * (4 << 20)
    assert layout.ramdisk is not None and layout.mod_start == layout.ramdisk.pfn
    with pytest.raises(UserError, match="needs at least"):
        compute_layout(image, 32 * 256)


@pytest.mark.network
def test_grub_starts_at_address_0() -> None:
    image = load("grub")
    assert (image.guest_os, image.virt_base, image.entry) == ("GRUB", 0, 0)
    assert image.init_p2m is None and not image.mod_start_pfn
    layout = compute_layout(image, 128 * 256)
    assert layout.p2m_virt == layout.p2m.pfn * 4096
