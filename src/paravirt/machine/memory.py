"""The machine's memory: page frames in one shared mapping.

A frame is 4096 bytes; frame number *mfn* begins at machine address ``mfn << 12``.  The mapping is shared and has
a file behind it, so that a second process, or a second engine, can map the same frames.

There is one door for writers: :meth:`Memory.write` (and the hypervisor's own native code).  Views that are handed
out are read-only, because a write that an engine is not told of leaves stale translated code behind.
"""

from __future__ import annotations

import contextlib
import mmap
import os
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from paravirt.errors import HypervisorBug, UserError

FRAME_SHIFT = 12
FRAME_SIZE = 1 << FRAME_SHIFT

Ranges = Sequence[tuple[int, int]]
WriteListener = Callable[[Ranges], None]


class Dma:
    """Writable views of ranges of memory until a block's end, when the engines are told; made by
    :meth:`Memory.dma_ranges`."""

    def __init__(self, memory: memoryview, ranges: Ranges, tell: WriteListener) -> None:
        self._memory = memory
        self._ranges = ranges
        self._tell = tell
        self._views: list[memoryview] = []

    def __enter__(self) -> list[memoryview]:
        memory = self._memory
        self._views = [memory[start:end] for start, end in self._ranges]
        return self._views

    def __exit__(self, *_: object) -> None:
        for view in self._views:
            view.release()
        self._tell(self._ranges)


class Memory:
    """``frames`` page frames of zeroed machine memory.

    Raises :class:`UserError` when the host cannot map that much.
    """

    def __init__(self, frames: int) -> None:
        if not 16 <= frames <= 1 << 27:
            raise UserError(
                f"A machine of {frames * FRAME_SIZE >> 20} MiB cannot be made: 1 MiB to 512 GiB are possible."
            )
        self.frames = frames
        self.size = frames << FRAME_SHIFT
        descriptor = os.memfd_create("paravirt-memory", os.MFD_CLOEXEC)
        try:
            os.ftruncate(descriptor, self.size)
            self._map = mmap.mmap(descriptor, self.size, mmap.MAP_SHARED)
        except (OSError, ValueError) as error:
            raise UserError(f"The host cannot map {self.size >> 20} MiB for the machine: {error}.") from error
        finally:
            os.close(descriptor)
        self._bytes: npt.NDArray[np.uint8] = np.frombuffer(self._map, dtype=np.uint8)
        self._view = memoryview(self._map)
        self._readonly_view = self._view.toreadonly()
        self._listeners: list[WriteListener] = []

    @property
    def address(self) -> int:
        """The host's virtual address of machine frame 0, for native code."""
        return int(self._bytes.ctypes.data)

    def on_write(self, listener: WriteListener) -> None:
        """Call ``listener`` with ranges of machine addresses, [start, end), after each write (engines drop stale
        code)."""
        self._listeners.append(listener)

    def view(self, mfn: int, count: int = 1) -> npt.NDArray[np.uint8]:
        """A read-only view of ``count`` frames from ``mfn`` on: shape ``(count * 4096,)``, live."""
        start, end = mfn << FRAME_SHIFT, (mfn + count) << FRAME_SHIFT
        self._check(start, end)
        view = self._bytes[start:end]
        view.flags.writeable = False
        return view

    def view_ranges(self, ranges: Ranges) -> list[memoryview]:
        """Read-only views of several ranges of machine addresses, [start, end), live."""
        self._check_all(ranges)
        view = self._readonly_view
        return [view[start:end] for start, end in ranges]

    def read(self, address: int, length: int) -> bytes:
        """A copy of ``length`` bytes from machine address ``address`` on."""
        self._check(address, address + length)
        return bytes(self._view[address : address + length])

    def write(self, address: int, data: bytes | bytearray | memoryview) -> None:
        """Write ``data`` at machine address ``address``, and tell the engines."""
        end = address + (len(data) if type(data) is bytes else memoryview(data).nbytes)
        self._check(address, end)
        self._view[address:end] = data if type(data) is bytes else memoryview(data).cast("B")
        self._tell([(address, end)])

    @contextlib.contextmanager
    def dma(self, mfn: int, count: int = 1) -> Iterator[memoryview]:
        """``count`` frames from ``mfn`` on as a writable view until the block's end; the engines are told then.

        The caller holds a reference and a use as writable of each frame for as long.
        """
        with self.dma_ranges([(mfn << FRAME_SHIFT, (mfn + count) << FRAME_SHIFT)]) as (view,):
            yield view

    def dma_ranges(self, ranges: Ranges) -> Dma:
        """Several ranges of machine addresses, [start, end), as writable views until the block's end, as :meth:`dma`
        gives whole frames."""
        self._check_all(ranges)
        return Dma(self._view, ranges, self._tell)

    def clear(self, mfn: int, count: int = 1) -> None:
        """Zero ``count`` frames from ``mfn`` on, and tell the engines."""
        start, end = mfn << FRAME_SHIFT, (mfn + count) << FRAME_SHIFT
        self._check(start, end)
        self._bytes[start:end] = 0
        self._tell([(start, end)])

    def close(self) -> None:
        """Give the memory back to the host.  Views that are still held keep the mapping alive."""
        del self._bytes
        self._readonly_view.release()
        self._view.release()
        # A view may outlive the machine: the mapping then goes when the view does.
        with contextlib.suppress(BufferError):
            self._map.close()

    def _tell(self, ranges: Ranges) -> None:
        for listener in self._listeners:
            listener(ranges)

    def _check_all(self, ranges: Ranges) -> None:
        size = self.size
        for start, end in ranges:
            if not 0 <= start <= end <= size:
                self._check(start, end)

    def _check(self, start: int, end: int) -> None:
        if not 0 <= start <= end <= self.size:
            raise HypervisorBug(f"machine addresses {start:#x}..{end:#x} are outside the machine's memory")
