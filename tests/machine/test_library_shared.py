"""The library that the engine drives is also a program's own, in the same process."""

from __future__ import annotations

import importlib
from typing import Any

from paravirt import Machine

unicorn: Any = importlib.import_module("unicorn")  # it is not typed
x86: Any = importlib.import_module("unicorn.x86_const")

LOOP = bytes.fromhex("48ffc04839c875f8")  # 1: inc rax; cmp rax, rcx; jne 1b


def test_a_program_uses_the_library_beside_a_machine() -> None:
    with Machine(memory=8):
        own = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64)
        own.mem_map(0x10000, 0x1000)
        own.mem_write(0x10000, LOOP)
        own.reg_write(x86.UC_X86_REG_RCX, 1000)
        for step in range(1, 4):
            own.emu_start(0x10000, 0x10008, count=1)
            assert own.reg_read(x86.UC_X86_REG_RAX) == step
        own.emu_start(0x10000, 0x10008)
        assert own.reg_read(x86.UC_X86_REG_RAX) == 1000
