"""Kernels that several domains run are unpacked once."""

from __future__ import annotations

import hashlib
from weakref import WeakValueDictionary

from paravirt.domain0.builder.image import KernelImage, parse_kernel


class KernelImages:
    """The kernels that are in use, by what is in their files.

    An image stays as long as somebody holds it: each domain does, whose crash report needs the symbols.
    """

    def __init__(self) -> None:
        self._images: WeakValueDictionary[bytes, KernelImage] = WeakValueDictionary()

    def parse(self, data: bytes) -> KernelImage:
        """Like :func:`parse_kernel`, but the same file gives the same image, without being read again.

        Two threads may ask at once: in the worst case both do the work.

        Raises:
            UserError: as :func:`parse_kernel`.
        """
        digest = hashlib.sha256(data).digest()
        image = self._images.get(digest)
        if image is None:
            image = self._images.setdefault(digest, parse_kernel(data))
        return image
