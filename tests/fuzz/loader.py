"""A fuzzer of the kernel loader, guided by coverage: `python -m tests.fuzz.loader --runs 200000`.

Kernel files are mutated: bits, numbers of headers and notes, pieces cut out, doubled or taken from another file. What
reaches new lines of the loader is kept and mutated further. Whatever the file: the loader returns an image that can be
laid out, or raises UserError with one sentence.
"""

from __future__ import annotations

import argparse
import random
import secrets
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import paravirt.domain0.builder as builder
from paravirt.domain0.builder import compute_layout, parse_kernel
from paravirt.errors import UserError

from ..domain0.builder import _kernels

FOLDER = str(Path(builder.__file__).parent)
LIMIT = 1 << 20  # bytes that a payload may unpack to
PAGES = 4096  # of the domain that an image is laid out in
NUMBERS = [0, 1, 2, 7, 0x7F, 0x80, 0xFF, 0xFFF, 0x1000, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]
NUMBERS += [1 << 32, 1 << 47, 1 << 52, 1 << 63, (1 << 64) - 1, (1 << 64) - 4096, _kernels.VIRT_BASE, 1 << 39]


def seeds() -> list[bytes]:
    """Files of every kind that the loader knows."""
    plain = _kernels.kernel()
    legacy = b"GUEST_OS=linux,XEN_VER=xen-3.0,VIRT_BASE=0xffffffff80000000,ELF_PADDR_OFFSET=0,LOADER=generic\0"
    section = _kernels.Section(b"__xen_guest", 1, legacy)
    symbols = _kernels.Section(b".symtab", 2, bytes(24) + b"\1\0\0\0\2\0\1\0" + bytes(16), link=2)
    names = _kernels.Section(b".strtab", 3, b"\0start\0")
    whole = _kernels.Kernel(notes=_kernels.xen_notes(INIT_P2M=0x8000000000, HYPERCALL_PAGE=_kernels.VIRT_BASE))
    whole.sections = [symbols, names]
    files = [plain, whole.build(), _kernels.Kernel(sections=[section]).build()]
    files += [_kernels.bzimage(pack(plain)) for pack in _kernels.PACKERS.values()]
    return [*files, _kernels.PACKERS["gzip"](_kernels.bzimage(plain))]


@dataclass
class LoaderFuzzer:
    """One run.

    Attributes:
        lines: of the loader that were reached.
        accepted, refused: how many files were, and how many not.
    """

    seed: int
    lines: set[tuple[str, int]] = field(default_factory=set)
    accepted: int = 0
    refused: int = 0
    corpus: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        for data in seeds():
            self.feed(data)
            self.corpus.append(data)

    def run(self, runs: int) -> None:
        """Mutate and feed so many files.

        Raises:
            AssertionError: something else than UserError came out, or a refusal that is no sentence; the file is
                in the message.
        """
        for _ in range(runs):
            data = self.mutate(self.random.choice(self.corpus))
            if self.feed(data):
                self.corpus.append(data)

    def feed(self, data: bytes) -> bool:
        """Load one file; whether it reached new lines."""
        before = len(self.lines)
        sys.settrace(self._trace)
        try:
            image = parse_kernel(data, limit=LIMIT)
            layout = compute_layout(image, PAGES)
            assert layout is not None
            self.accepted += 1
        except UserError as error:
            self.refused += 1
            text = str(error)
            assert text.endswith(".") and "\n" not in text, f"no sentence: {text!r}"
        except Exception as error:
            raise AssertionError(f"{type(error).__name__}: {error}; the file: {data.hex()}") from error
        finally:
            sys.settrace(None)
        return len(self.lines) > before

    def _trace(self, frame: FrameType, event: str, argument: Any) -> Any:
        if not frame.f_code.co_filename.startswith(FOLDER):
            return None
        self.lines.add((frame.f_code.co_filename, frame.f_lineno))
        return self._trace

    def mutate(self, data: bytes) -> bytes:
        """Some changes, most of them near the start, where headers are."""
        changed = bytearray(data)
        for _ in range(self.random.choice([1, 1, 1, 2, 4, 8])):
            if not changed:
                break
            limit = len(changed) if self.random.random() < 0.5 else min(len(changed), 0x300)
            at = self.random.randrange(limit)
            kind = self.random.randrange(6)
            if kind == 0:
                changed[at] ^= 1 << self.random.randrange(8)
            elif kind == 1:
                changed[at] = self.random.randrange(256)
            elif kind == 2:
                size = self.random.choice([2, 4, 8])
                number = self.random.choice(NUMBERS) + self.random.randrange(-1, 2)
                changed[at : at + size] = (number & ((1 << 8 * size) - 1)).to_bytes(size, "little")
            elif kind == 3:
                del changed[at : at + self.random.choice([1, 4, 64, 4096])]
            elif kind == 4:
                piece = changed[at : at + self.random.choice([4, 16, 64])]
                changed[at:at] = piece
            else:
                other = self.random.choice(self.corpus or [data])
                cut = self.random.randrange(len(other) + 1)
                changed[at : at + 64] = other[cut : cut + 64]
        return bytes(changed)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="loader", description="Feed mutated kernel files to the loader.")
    parser.add_argument("--runs", type=int, default=200_000)
    parser.add_argument("--seed", type=int)
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else secrets.randbelow(10**9)
    print(f"seed {seed}", flush=True)
    fuzzer = LoaderFuzzer(seed)
    fuzzer.run(options.runs)
    print(
        f"{options.runs} files: {fuzzer.accepted} accepted, {fuzzer.refused} refused with a sentence; "
        f"{len(fuzzer.lines)} lines reached, {len(fuzzer.corpus)} files kept; seed {seed}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
