"""A kernel's symbol table, for crash reports: from an address to the function that holds it."""

from __future__ import annotations

import bisect
from typing import Final

import numpy as np
from numpy.typing import NDArray

from paravirt.domain0.builder.elf import SHT_STRTAB, SHT_SYMTAB, ElfFile
from paravirt.errors import UserError

_SYMBOL: Final = np.dtype(
    [("name", "<u4"), ("info", "u1"), ("other", "u1"), ("shndx", "<u2"), ("value", "<u8"), ("size", "<u8")]
)
_STT_FUNC: Final = 2
_STT_SECTION: Final = 3
_STT_FILE: Final = 4
_MAX_NAME: Final = 256


class SymbolTable:
    """Symbols by address. Names are decoded when asked for: a Linux kernel has 150 000 of them."""

    def __init__(self, rows: NDArray[np.void] | None = None, names: bytes = b"") -> None:
        if rows is None:
            rows = np.empty(0, _SYMBOL)
        kinds = rows["info"] & 0xF
        useful = (rows["shndx"] != 0) & (rows["name"] != 0) & (kinds != _STT_SECTION) & (kinds != _STT_FILE)
        rows, kinds = rows[useful], kinds[useful]
        # Of several symbols at one address a function is the one to show: it sorts last, and the search
        # finds the last.
        order = np.lexsort((kinds == _STT_FUNC, rows["value"]))
        self._values: list[int] = rows["value"][order].tolist()
        self._offsets: list[int] = rows["name"][order].tolist()
        self._names = names

    @classmethod
    def of(cls, elf: ElfFile) -> SymbolTable:
        """Read ``.symtab``; an absent or damaged one makes an empty table: a kernel boots without it."""
        for section in elf.sections:
            if section.type == SHT_SYMTAB and section.link < len(elf.sections):
                strings = elf.sections[section.link]
                if strings.type != SHT_STRTAB:
                    break
                try:
                    table, names = elf.contents(section), elf.contents(strings)
                except UserError:
                    break
                count = len(table) // _SYMBOL.itemsize
                return cls(np.frombuffer(table, _SYMBOL, count), bytes(names))
        return cls()

    def __len__(self) -> int:
        return len(self._values)

    def lookup(self, address: int) -> tuple[str, int] | None:
        """The nearest symbol at or below ``address``, and the distance in bytes; None when there is none."""
        index = bisect.bisect_right(self._values, address) - 1
        if index < 0:
            return None
        start = self._offsets[index]
        name = self._names[start : start + _MAX_NAME].split(b"\0")[0].decode("ascii", "replace")
        return name, address - self._values[index]

    def address(self, name: str) -> int | None:
        """The address of the first symbol of that name, or None."""
        wanted = name.encode() + b"\0"
        for value, start in zip(self._values, self._offsets, strict=True):
            if self._names.startswith(wanted, start):
                return value
        return None
