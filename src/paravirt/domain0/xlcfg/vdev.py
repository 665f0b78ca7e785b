"""Names and numbers of virtual disks (docs/man/xen-vbd-interface.7.pandoc in Xen's tree)."""

from __future__ import annotations

import re
from typing import Final

from paravirt.errors import UserError

_NAME: Final = re.compile(r"(xvd|hd|sd)([a-z]{1,4})([0-9]{1,3})?")
_DISK_AND_PARTITION: Final = re.compile(r"d([0-9]{1,7})p([0-9]{1,3})|d([0-9]{1,7})")
_NUMBER: Final = re.compile(r"0x[0-9a-fA-F]{1,8}|[0-9]{1,10}")

_XVD_MAJOR: Final = 202
_SCSI_MAJOR: Final = 8
_IDE_MAJORS: Final = (3, 22)
_EXTENDED: Final = 1 << 28
_LARGEST: Final = (1 << 29) - 1


def vdev_number(text: str) -> int:
    """The number of the disk that a name like ``xvda``, ``sdb1``, ``d0p1`` or ``51712`` stands for.

    Raises:
        UserError: it stands for none.
    """
    if _NUMBER.fullmatch(text):
        plain = int(text, 0) if text.startswith("0x") else int(text)
        if plain <= _LARGEST:
            return plain
    if found := _DISK_AND_PARTITION.fullmatch(text):
        number = _xvd(int(found[1] or found[3]), int(found[2] or 0))
        if number is not None:
            return number
    if found := _NAME.fullmatch(text):
        number = _NUMBERS[found[1]](_letters(found[2]), int(found[3] or 0))
        if number is not None:
            return number
    raise UserError(f"{text!r} is not the name of a virtual disk (xvda, xvda1, sda, hda, d0p1 or a number).")


def vdev_name(number: int) -> str:
    """The name that a guest's Linux gives a disk."""
    if number & _EXTENDED:
        disk, partition = number >> 8 & 0xFFFFF, number & 0xFF
    elif number >> 8 == _XVD_MAJOR:
        disk, partition = number >> 4 & 0xF, number & 0xF
    else:
        return str(number)
    letters = ""
    disk += 1
    while disk:
        disk, letter = divmod(disk - 1, 26)
        letters = chr(ord("a") + letter) + letters
    return f"xvd{letters}{partition or ''}"


def _letters(text: str) -> int:
    """a is 0, z is 25, aa is 26."""
    number = 0
    for letter in text:
        number = number * 26 + ord(letter) - ord("a") + 1
    return number - 1


def _xvd(disk: int, partition: int) -> int | None:
    if disk < 16 and partition < 16:
        return _XVD_MAJOR << 8 | disk << 4 | partition
    if disk < 1 << 20 and partition < 256:
        return _EXTENDED | disk << 8 | partition
    return None


def _hd(disk: int, partition: int) -> int | None:
    if disk < 4 and partition < 64:
        return _IDE_MAJORS[disk // 2] << 8 | disk % 2 << 6 | partition
    return None


def _sd(disk: int, partition: int) -> int | None:
    return _SCSI_MAJOR << 8 | disk << 4 | partition if disk < 16 and partition < 16 else None


_NUMBERS: Final = {"xvd": _xvd, "hd": _hd, "sd": _sd}
