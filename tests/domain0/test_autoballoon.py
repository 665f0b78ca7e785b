"""Memory for a new domain from idle guests. A guest's balloon driver is played by the test."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paravirt import Domain, Machine, UserError
from paravirt.domain0.toolstack import autoballoon
from paravirt.domain0.toolstack.autoballoon import Lender, targets

from ..hypervisor.audited import audited
from ..oracle import kernels
from ..patience import PATIENCE, wait_for

lenders = st.lists(st.builds(Lender, st.integers(1, 9), st.integers(0, 1 << 22), st.integers(0, 1 << 22)), max_size=6,
                   unique_by=lambda lender: lender.domid)  # fmt: skip


@given(st.integers(1, 1 << 23), lenders)
def test_targets_are_enough_and_leave_everybody_the_least(missing: int, several: list[Lender]) -> None:
    found = targets(missing, several)
    by_number = {lender.domid: lender for lender in several}
    if missing > sum(lender.spare for lender in several):
        assert found == {}
        return
    assert sum(by_number[domid].has - kib for domid, kib in found.items()) >= missing
    for domid, kib in found.items():
        lender = by_number[domid]
        assert lender.least <= kib < lender.has
        assert (lender.has - kib) % 4 == 0
        assert lender.has - kib <= missing * lender.spare / sum(one.spare for one in several) + 4


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kernels")
    for name in ("idle", "burn"):
        kernels.build(name, folder)
    return folder


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    monkeypatch.setattr(autoballoon, "PATIENCE", 1.0)
    with Machine(memory=96, pcpus=2, autoballoon=True) as made, audited(made):
        yield made


def give_what_is_asked(machine: Machine, domain: Domain) -> None:
    """A balloon driver: frames that the kernel does not use go, from the end, until there are no more than wanted."""
    view = machine.host.domains[domain.domid]
    unused = iter([int(mfn) for mfn in view.p2m[: -len(view.p2m) // 2 - 1 : -1]])

    def changed(_: str) -> None:
        target = int(machine.store.get(f"/local/domain/{domain.domid}/memory/target") or 1 << 40)  # it may be gone
        with machine.host.lock:
            while view.tot_pages * 4 > target:
                assert view.release_page(next(unused))

    machine.call(lambda: machine.store.watch(f"/local/domain/{domain.domid}/memory/target", changed))


def target(machine: Machine, domain: Domain) -> int:
    return int(machine.call(lambda: machine.store.get(f"/local/domain/{domain.domid}/memory/target")) or b"")


def frames(domain: Domain) -> int:
    return domain.control(lambda view: view.tot_pages)


def created(machine: Machine, kernel: Path, memory: int, paused: bool = False) -> Domain:
    """A new domain. A guest that stands still with a busy host seems to work, and is not asked then: try again."""
    made: list[Domain] = []

    def create() -> bool:
        with suppress(UserError):
            made.append(machine.create(kernel, memory=memory, paused=paused))
        return bool(made)

    wait_for(create, "idle guests that give memory")
    return made[0]


def refused(machine: Machine, kernel: Path, memory: int, words: str) -> None:
    """Wait until a domain is refused in these words."""

    def create() -> bool:
        with pytest.raises(UserError) as error:
            machine.create(kernel, memory=memory)
        return words in str(error.value)

    wait_for(create, words)


def test_an_idle_guest_gives_what_is_missing(
    machine: Machine, built: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lender = machine.create(built / "idle", memory=64)
    give_what_is_asked(machine, lender)
    with machine.host.lock:
        missing = 48 - machine.host.free_frames // 256
    with monkeypatch.context() as patch:  # one that gives, however late, keeps its target
        patch.setattr(autoballoon, "PATIENCE", PATIENCE)
        second = created(machine, built / "idle", 48)
    assert frames(second) == 48 * 256
    assert 64 - missing - 4 <= frames(lender) / 256 <= 64 - missing
    assert target(machine, lender) == frames(lender) * 4
    third = created(machine, built / "idle", 4)
    assert frames(third) == 4 * 256


def test_nobody_is_left_less_than_the_least(machine: Machine, built: Path) -> None:
    lender = machine.create(built / "idle", memory=64)
    give_what_is_asked(machine, lender)
    refused(machine, built / "idle", 80, "idle guests can give 32 MiB")
    assert target(machine, lender) == 64 * 1024
    machine.call(lambda: machine.store.set(f"/local/domain/{lender.domid}/memory/dynamic-min", str(60 * 1024)))
    refused(machine, built / "idle", 48, "idle guests can give 4 MiB")
    assert frames(lender) == 64 * 256 and len(machine.domains) == 1


def test_guests_that_work_or_stand_still_are_not_asked(machine: Machine, built: Path) -> None:
    busy = machine.create(built / "burn", memory=32)  # for ever
    paused = machine.create(built / "idle", memory=32, paused=True)
    refused(machine, built / "idle", 48, "idle guests can give 0 MiB")
    assert [target(machine, domain) for domain in (busy, paused)] == [32 * 1024] * 2


def test_one_that_does_not_give_has_its_target_back_and_others_stand_in(machine: Machine, built: Path) -> None:
    deaf, hearing = (machine.create(built / "idle", memory=32) for _ in range(2))
    give_what_is_asked(machine, hearing)
    created(machine, built / "idle", 44)
    assert (frames(deaf), target(machine, deaf)) == (32 * 256, 32 * 1024)
    assert frames(hearing) < 24 * 256
    assert deaf.control(lambda view: view.max_pages) >= 32 * 256
    refused(machine, built / "idle", 24, "idle guests can give")
    assert target(machine, deaf) == 32 * 1024


def test_without_it_nobody_is_asked(built: Path) -> None:
    with Machine(memory=48) as machine:
        lender = machine.create(built / "idle", memory=32)
        with pytest.raises(UserError, match="of free memory, but"):
            machine.create(built / "idle", memory=32)
        assert target(machine, lender) == 32 * 1024


def test_two_at_once_do_not_take_each_other_s_room(machine: Machine, built: Path) -> None:
    lender = machine.create(built / "idle", memory=80)
    give_what_is_asked(machine, lender)
    made: list[Domain] = []

    def make() -> None:
        made.append(created(machine, built / "idle", 24))

    both = [threading.Thread(target=make) for _ in range(2)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert [frames(domain) for domain in made] == [24 * 256] * 2


def test_not_on_a_deterministic_machine() -> None:
    with pytest.raises(UserError, match="deterministic"):
        Machine(memory=16, deterministic=True, autoballoon=True)
