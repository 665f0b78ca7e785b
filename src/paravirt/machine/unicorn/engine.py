# cython: language_level=3, cdivision=True
# mypy: ignore-errors
# ruff: noqa: F821
"""The Unicorn engine: QEMU's TCG as a library, behind the Cpu protocol.  The native half is shim.c."""

import importlib.util
import pathlib

import cython
from cython.cimports.libc.stdint import uintptr_t
from cython.cimports.paravirt.machine.cpu import u32
from cython.cimports.paravirt.machine.unicorn.engine import (
    UnicornCounters,
    UnicornEnginePtr,
    unicorn_engine_close,
    unicorn_engine_counters,
    unicorn_engine_open,
    unicorn_ops,
)

from paravirt.errors import HypervisorBug, UserError
from paravirt.machine.cpu import Capabilities

VERSION = "2.1.4"
MIN_CODE_BUFFER_MIB = 256
MAX_CODE_BUFFER_MIB = 1024
CODE_BUFFERS_PART = 8
"""Of a machine's memory, what all its engines together may fill with translated code."""

CAPABILITIES = Capabilities(
    parallel_vcpus=False,
    atomics=False,
    deterministic=True,
    honours_ts=True,
    honours_debug_registers=False,
    honours_slot_256=True,
)


def library_path() -> str:
    """Where the pinned ``unicorn`` package keeps its shared library.

    Raises:
        UserError: the package is not installed.
    """
    spec = importlib.util.find_spec("unicorn")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        candidate = pathlib.Path(folder) / "lib" / "libunicorn.so.2"
        if candidate.exists():
            return str(candidate)
    raise UserError(
        f"The package unicorn {VERSION} is not installed, and no other CPU engine is usable here."
    )


def code_buffer_mib(size: int, engines: int) -> int:
    """How much translated code each of so many engines over ``size`` bytes of machine memory keeps.

    When a buffer is full all of it is translated anew, as it is needed. A boot of Debian's kernel fills about 45 MiB;
    an idle guest goes on using one or two, so that with many guests too small a buffer does not hold what all of them
    use. The host gives memory for what is filled only.
    """
    part: int = size // CODE_BUFFERS_PART // engines >> 20
    return min(max(part, MIN_CODE_BUFFER_MIB), MAX_CODE_BUFFER_MIB)


class UnicornEngine:
    """An engine over ``size`` bytes of machine memory at host address ``memory``.

    With ``count_blocks`` it is deterministic: it counts translation blocks in ``cpu.blocks`` and stops at a budget.
    ``code_buffer`` is how much translated code it keeps, in MiB.

    Raises:
        UserError: the library is missing, or is not the version whose layout is known.
    """

    def __init__(
        self, memory: int, size: int, count_blocks: bool = False, code_buffer: int = MIN_CODE_BUFFER_MIB
    ) -> None:
        message: cython.char[256]
        path: bytes = library_path().encode()
        address: uintptr_t = memory
        message[0] = 0
        self.name = "unicorn"
        self.version = VERSION
        self.capabilities = CAPABILITIES
        self.native_leaves = {}
        self.engine = unicorn_engine_open(
            path,
            cython.cast(cython.p_void, address),
            size,
            count_blocks,
            cython.cast(u32, code_buffer << 20),
            message,
            256,
        )
        if self.engine == cython.NULL:
            raise UserError(f"The Unicorn engine cannot be used: {cython.cast(bytes, message).decode()}.")

    @property
    def ops_address(self) -> int:
        """The address of its ``struct cpu_ops``."""
        return cython.cast(uintptr_t, cython.address(unicorn_ops))

    @property
    def handle(self) -> int:
        """The address to pass as ``engine`` to these operations."""
        return cython.cast(uintptr_t, self.engine)

    def counters(self) -> dict:
        """What was translated and forgotten since it was opened, by the names in shim.h."""
        found: UnicornCounters
        if self.engine == cython.NULL:
            raise HypervisorBug("counters of an engine that is closed")
        unicorn_engine_counters(self.engine, cython.address(found))
        return found

    def close(self) -> None:
        """Free the engine and everything it translated; no vcpu may be running on it."""
        engine: UnicornEnginePtr = self.engine
        self.engine = cython.NULL
        if engine != cython.NULL:
            unicorn_engine_close(engine)

    def __dealloc__(self) -> None:
        if self.engine != cython.NULL:
            unicorn_engine_close(self.engine)
