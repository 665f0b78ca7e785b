"""Words that a running guest changes with locked instructions, changed from another thread while it is held."""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Iterator

import pytest

from paravirt.hypervisor.views import Domain, Host
from paravirt.machine.memory import Memory
from paravirt.machine.unicorn.engine import UnicornEngine

WINDOW = 0xFFFF_FFFF_8000_0000
TABLE = 0x67
CODE, DATA = WINDOW + 4 * 4096, WINDOW + 5 * 4096
COUNT_UP = bytes(
    [
        *(0x48, 0x8B, 0x06),  # movq (%rsi), %rax
        *(0x48, 0x8D, 0x50, 0x01),  # leaq 1(%rax), %rdx
        *(0xF0, 0x48, 0x0F, 0xB1, 0x16),  # lock cmpxchgq %rdx, (%rsi)
        *(0x75, 0xF2),  # jne to the beginning
        *(0x48, 0xFF, 0x46, 0x08),  # incq 8(%rsi)
        *(0xEB, 0xEC),  # and again
    ]
)


class Counting:
    """A domain that counts in two words, and a thread for its physical CPU."""

    def __init__(self) -> None:
        self.memory = Memory(128)
        self.engine = UnicornEngine(self.memory.address, self.memory.size, False)
        self.host = Host(self.memory, [self.engine])
        self.domain: Domain = self.host.create_domain(1, 8, 1)
        l4, l3, l2, l1, code, data = (int(mfn) for mfn in self.domain.p2m[:6])
        for mfn, index, value in (
            (l4, 511, l3 << 12 | TABLE),
            (l3, 510, l2 << 12 | TABLE),
            (l2, 0, l1 << 12 | TABLE),
            (l1, 4, code << 12 | 0x65),
            (l1, 5, data << 12 | TABLE),
        ):
            self.memory.write(mfn * 4096 + index * 8, struct.pack("<Q", value))
        self.memory.write(code * 4096, COUNT_UP)
        self.at = data * 4096
        self.domain.pin_l4(0)
        self.domain.set_context(rip=CODE, rsp=DATA + 4096, rsi=DATA, cr3_pfn=0)
        self.thread = threading.Thread(target=self.host.run, args=(0,), daemon=True)
        self.thread.start()
        with self.host.lock:
            self.domain.unpause()
        while not self.words()[0]:
            time.sleep(0.001)

    def words(self) -> tuple[int, int]:
        one, two = struct.unpack("<QQ", self.memory.read(self.at, 16))
        return int(one), int(two)

    def stop(self) -> None:
        with self.host.lock:
            self.domain.pause()
            self.host.stop()
        self.thread.join()
        self.engine.close()


@pytest.fixture
def counting() -> Iterator[Counting]:
    made = Counting()
    yield made
    made.stop()


def test_a_held_guest_stands_still_and_goes_on(counting: Counting) -> None:
    for _ in range(20):
        with counting.host.lock, counting.host.quiesced(counting.domain):
            before = counting.words()
            time.sleep(0.002)
            assert counting.words() == before
        while counting.words() == before:
            time.sleep(0.001)


def test_no_update_is_lost(counting: Counting) -> None:
    """The guest exchanges all 64 bits in one locked instruction, which the engine does in two steps; we the upper
    half."""
    changes = 0
    for _ in range(100):
        with counting.host.lock, counting.host.quiesced(counting.domain):
            for _ in range(200):
                assert counting.host.compare_exchange(counting.at + 4, changes, changes + 1) == changes
                assert counting.host.compare_exchange(counting.at + 4, changes, changes + 7) == changes + 1
                changes += 1
    with counting.host.lock, counting.host.quiesced(counting.domain):
        counted, beside = counting.words()
    assert counted >> 32 == changes
    assert (counted & 0xFFFF_FFFF) - beside in (0, 1)


def test_bits_of_a_word(counting: Counting) -> None:
    at = counting.at + 64
    counting.memory.write(at, bytes([0xFF, 0x0F, 0xF0, 0x00]))
    counting.host.clear_bits(at + 2, 0x30)
    counting.host.set_bits(at, 0xF000)
    counting.host.clear_bits(at, 0x000F)
    counting.host.set_bits(at + 2, 0x0102)
    assert counting.memory.read(at, 4) == bytes([0xF0, 0xFF, 0xC2, 0x01])
