"""Debian's stock kernel on the KVM engine: what is this engine's own.  All else runs on both (conftest.py)."""

from __future__ import annotations

from pathlib import Path

import pytest

from paravirt import Machine

from ..hypervisor.audited import audited, check
from .test_linux import _boot

pytestmark = pytest.mark.network

MMU_UPDATE = 1
SYSTEM_CALLS = 2
"""In the statistics: the hypercall, and the kind of exit that hypercalls are."""
ROUNDS = 2
"""Of processes that make, change, copy and end address spaces, and look at what is in them."""


@pytest.mark.usefixtures("shortcuts")
@pytest.mark.parametrize("engine", ["kvm", "kvm-exact"])
def test_updates_of_page_tables_are_put_off_unless_exactness_is_asked_for(
    engine: str, kernel: Path, ramdisk: bytes
) -> None:
    with Machine(memory=320, engine=engine) as machine, audited(machine):
        shell = _boot(machine, kernel, ramdisk)
        assert "\n42\n" in shell("echo $((6*7))")
        check(machine, "while the guest runs")
        stats = machine.stats()
        updates, exits = stats["hypercalls"][MMU_UPDATE][0], stats["exits"][SYSTEM_CALLS]
        assert (updates > exits) is (engine == "kvm")
        # What the guest's kernel reads back, and what its processes have, is the same either way.
        said = shell(f"/bin/spaces {ROUNDS}")
        assert f"\nspaces: rounds={ROUNDS} " in said
        assert " wrong=0\n" in said
        check(machine, "when processes have changed their memory")
