"""The builder of paravirtual domains: from a kernel file to a domain that is ready to run.

:func:`parse_kernel` reads the kernel, :func:`compute_layout` decides where everything goes, and
:func:`build_domain` puts it there.
"""

from paravirt.domain0.builder.build import BuildTarget, BuiltDomain, build_domain
from paravirt.domain0.builder.image import KernelImage, parse_kernel
from paravirt.domain0.builder.images import KernelImages
from paravirt.domain0.builder.layout import Layout, compute_layout

__all__ = [
    "BuildTarget",
    "BuiltDomain",
    "KernelImage",
    "KernelImages",
    "Layout",
    "build_domain",
    "compute_layout",
    "parse_kernel",
]
