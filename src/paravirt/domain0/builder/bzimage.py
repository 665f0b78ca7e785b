"""The bzImage: a Linux kernel behind its real-mode boot sector and setup code.

The layout is Linux's x86 boot protocol (``Documentation/arch/x86/boot.rst``). A paravirtual guest has no use
for the setup code or for the unpacking stub: only the payload matters, which is the ELF kernel, compressed or
not.
"""

from __future__ import annotations

import struct
from typing import Final

from paravirt.errors import UserError

_SECTOR: Final = 512
_BOOT_FLAG: Final = 0xAA55
_BOOT_FLAG_AT: Final = 0x1FE
_MAGIC: Final = b"HdrS"
_MAGIC_AT: Final = 0x202
_VERSION_AT: Final = 0x206
_SETUP_SECTS_AT: Final = 0x1F1
_PAYLOAD_AT: Final = 0x248
_HEADER_END: Final = 0x250
_FIRST_VERSION_WITH_PAYLOAD: Final = 0x0208
_DEFAULT_SETUP_SECTS: Final = 4


def is_bzimage(data: bytes | memoryview) -> bool:
    """Whether ``data`` begins with a boot sector that carries Linux's setup header."""
    if len(data) < _VERSION_AT + 2:
        return False
    flag = struct.unpack_from("<H", data, _BOOT_FLAG_AT)[0]
    return bool(flag == _BOOT_FLAG) and bytes(data[_MAGIC_AT : _MAGIC_AT + 4]) == _MAGIC


def payload(data: bytes | memoryview) -> memoryview:
    """Cut the payload, compressed as it is, out of a bzImage.

    Raises:
        UserError: too old a boot protocol (the payload is described from 2.08, Linux 2.6.26, on), or the file
            ends before its payload does.
    """
    version = struct.unpack_from("<H", data, _VERSION_AT)[0]
    if version < _FIRST_VERSION_WITH_PAYLOAD:
        raise UserError(
            f"The kernel is a bzImage of boot protocol {version >> 8}.{version & 0xFF:02d}, which does not "
            "say where its payload is; paravirt needs protocol 2.08 (Linux 2.6.26) or later."
        )
    if len(data) < _HEADER_END:
        raise UserError("The kernel is a bzImage that is cut short: the file ends within its header.")
    offset, length = struct.unpack_from("<II", data, _PAYLOAD_AT)
    start = ((data[_SETUP_SECTS_AT] or _DEFAULT_SETUP_SECTS) + 1) * _SECTOR + offset
    if not length:
        raise UserError("The kernel is a bzImage without a payload.")
    if start + length > len(data):
        raise UserError(
            f"The kernel is a bzImage that is cut short: its payload ends at byte {start + length}, "
            f"but the file has {len(data)}."
        )
    return memoryview(data)[start : start + length]
