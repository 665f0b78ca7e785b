"""console_io: closed to a release build's guests, open to those that are marked."""

from __future__ import annotations

import pytest

from paravirt.abi.errno import E2BIG, EFAULT, ENOSYS, EPERM
from paravirt.abi.xen import HYPERCALLS, CONSOLEIO_read, CONSOLEIO_write
from paravirt.hypervisor.hypercalls.console import CHUNK
from paravirt.hypervisor.hypercalls.registry import PREEMPT_AFTER

from .fakes import BAD, FakeVcpu

CONSOLE_IO = HYPERCALLS["console_io"]


@pytest.mark.parametrize("operation", [CONSOLEIO_write, CONSOLEIO_read, 2])
def test_it_is_not_for_guests(vcpu: FakeVcpu, operation: int) -> None:
    assert vcpu.call(CONSOLE_IO, operation, 5, vcpu.put(b"text\n")) == -EPERM
    assert vcpu.domain.console == b""


@pytest.fixture
def writer(vcpu: FakeVcpu) -> FakeVcpu:
    vcpu.domain.state.is_console = True
    return vcpu


@pytest.mark.parametrize("length", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK])
def test_bytes_are_written_as_they_are(writer: FakeVcpu, length: int) -> None:
    text = bytes(n % 256 for n in range(length))
    assert writer.call(CONSOLE_IO, CONSOLEIO_write, length, writer.put(text)) == 0
    assert writer.domain.console == text


def test_what_stands_before_an_unreadable_chunk_is_written(writer: FakeVcpu) -> None:
    start = writer.put(b"a" * (2 * CHUNK + 5), at_end=True)
    assert writer.call(CONSOLE_IO, CONSOLEIO_write, 3 * CHUNK, start) == -EFAULT
    assert writer.domain.console == b"a" * (2 * CHUNK)
    assert writer.call(CONSOLE_IO, CONSOLEIO_write, 1, BAD) == -EFAULT


@pytest.mark.parametrize("more", [0, 1])
def test_a_long_text_is_preempted_and_goes_on(writer: FakeVcpu, more: int) -> None:
    text = bytes(n % 251 for n in range(CHUNK * PREEMPT_AFTER + more))
    assert writer.call(CONSOLE_IO, CONSOLEIO_write, len(text), writer.put(text)) == 0
    assert writer.continuations == more
    assert writer.domain.console == text


def test_nothing_is_ever_typed_there(writer: FakeVcpu) -> None:
    assert writer.call(CONSOLE_IO, CONSOLEIO_read, 5, BAD) == 0
    assert writer.call(CONSOLE_IO, CONSOLEIO_read, 1 << 31, BAD) == -E2BIG


def test_operations_that_are_none(writer: FakeVcpu) -> None:
    assert writer.call(CONSOLE_IO, 2, 5, BAD) == -ENOSYS
