"""Guests from Debian's archive, for the tests that need them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from paravirt.errors import UserError
from paravirt.guestkernels import obtain
from paravirt.initramfs import cached

Obtain = Callable[[str], Path]


@pytest.fixture(scope="session")
def guest() -> Obtain:
    """The path of a guest by its name; `initramfs` is the ramdisk around busybox.

    What cannot be fetched here skips the test, except in continuous integration.
    """

    def get(name: str) -> Path:
        try:
            return cached(obtain("busybox").path) if name == "initramfs" else obtain(name).path
        except UserError as error:
            if os.environ.get("CI"):
                raise
            pytest.skip(str(error))

    return get
