"""Several domains with one kernel share what was read from its file."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest

from paravirt import Machine
from paravirt.domain0.builder import KernelImages
from paravirt.errors import UserError
from paravirt.guestkernels import obtain


def test_the_same_file_is_read_once_as_long_as_it_is_in_use() -> None:
    data = obtain("tiny").path.read_bytes()
    images = KernelImages()
    first = images.parse(data)
    assert images.parse(bytes(bytearray(data))) is first
    assert len(images._images) == 1
    del first
    gc.collect()
    assert len(images._images) == 0
    assert images.parse(data).entry


def test_another_file_is_another_image(tmp_path: Path) -> None:
    data = obtain("tiny").path.read_bytes()
    images = KernelImages()
    first = images.parse(data)
    assert images.parse(data + b"\0") is not first
    with pytest.raises(UserError):
        images.parse(b"no kernel")
    assert images.parse(data) is first


def test_domains_of_a_machine_share_theirs() -> None:
    with Machine(memory=64) as machine:
        path = obtain("tiny").path
        one = machine.create(path, memory=16, paused=True)
        two = machine.create(path.read_bytes(), memory=16, paused=True)
        assert one.image is two.image
