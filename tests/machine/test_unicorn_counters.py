"""What the Unicorn engine counts of its translations, and how much translated code it keeps."""

from __future__ import annotations

from paravirt import Machine
from paravirt.guestkernels import obtain
from paravirt.machine.unicorn.engine import code_buffer_mib

GIB = 1 << 30


def test_translations_are_counted() -> None:
    with Machine(memory=64, pcpus=1, engine="unicorn") as machine:
        (engine,) = machine.engines
        before = engine.counters()
        assert before["blocks"] == before["kept_blocks"] == before["whole_flushes"] == 0
        for _ in range(2):
            domain = machine.create(obtain("tiny").path, memory=8)
            domain.wait()
        after = engine.counters()
    assert after["blocks"] == after["kept_blocks"] > 0
    assert 0 < after["kept_bytes"] < after["buffer_bytes"] <= 256 << 20
    assert after["translating_ns"] > 0 and after["whole_flushes"] == 0
    assert after["tlb_flushes"] >= 2


def test_larger_machines_keep_more_code() -> None:
    assert code_buffer_mib(64 << 20, 1) == code_buffer_mib(2 * GIB, 1) == code_buffer_mib(8 * GIB, 4) == 256
    assert code_buffer_mib(4 * GIB, 1) == code_buffer_mib(8 * GIB, 2) == 512
    assert code_buffer_mib(10 * GIB, 1) == code_buffer_mib(256 * GIB, 2) == 1024
