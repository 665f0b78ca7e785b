"""Which CPU engine a machine takes: the one it was told, or the better one that is usable here."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from paravirt import Machine
from paravirt.errors import UserError
from paravirt.machine import choice

REFUSED = "The KVM engine cannot be used: this host is an odd one."


def refuse() -> None:
    raise UserError(REFUSED)


@pytest.fixture
def with_kvm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "probe_kvm", lambda: ({}, None, {}))


@pytest.fixture
def without_kvm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "probe_kvm", refuse)
    monkeypatch.setattr(choice, "KVM_DEVICE", "/dev/none")


@pytest.mark.usefixtures("with_kvm")
def test_kvm_is_taken_where_its_self_test_passes() -> None:
    assert choice.settle("auto") == ("kvm", "Guests run on the KVM engine.")
    assert choice.settle("kvm") == ("kvm", "")
    assert choice.settle("kvm-exact") == ("kvm-exact", "")
    assert choice.settle("unicorn") == ("unicorn", "")


@pytest.mark.usefixtures("with_kvm")
def test_a_run_that_is_to_be_repeated_takes_unicorn() -> None:
    name, why = choice.settle("auto", deterministic=True)
    assert name == "unicorn"
    assert "cannot repeat a run" in why
    with pytest.raises(UserError, match="cannot repeat a run"):
        choice.settle("kvm", deterministic=True)


@pytest.mark.usefixtures("without_kvm")
def test_elsewhere_it_is_unicorn_and_says_why() -> None:
    name, why = choice.settle("auto")
    assert name == "unicorn"
    assert why == f"Guests run on the Unicorn engine. {REFUSED}"
    with pytest.raises(UserError, match="an odd one"):
        choice.settle("kvm")
    with Machine(memory=16, pcpus=1, engine="auto") as machine:
        assert machine.engine == "unicorn"
        assert machine.engine_notice == why


@pytest.mark.usefixtures("without_kvm")
def test_who_lacks_the_permission_is_told_what_gives_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    device = tmp_path / "kvm"
    device.touch()
    monkeypatch.setattr(choice, "KVM_DEVICE", str(device))
    assert "group" not in choice.settle("auto")[1]
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert choice.settle("auto")[1].endswith("the members of the group kvm.")
    device.unlink()
    assert "group" not in choice.settle("auto")[1]


def test_there_are_no_other_engines() -> None:
    for deterministic in (False, True):
        with pytest.raises(UserError, match="no CPU engine 'abacus'"):
            choice.settle("abacus", deterministic=deterministic)
