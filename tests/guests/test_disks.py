"""Hostile block frontends beside a well-behaved one, each a kernel on a machine of theirs together."""

from __future__ import annotations

from pathlib import Path

import pytest

from paravirt import Domain, Machine, ShutdownReason, UserError
from paravirt.domain0.block.image import RawImage
from paravirt.domain0.devices.spec import DeviceSpec
from paravirt.domain0.xlcfg.disks import disk_spec
from paravirt.machine.choice import choose

from ..hypervisor.audited import audited, check
from ..oracle import kernels
from ..patience import PATIENCE, wait_for

DISK_SIZE = 2 << 20


@pytest.fixture(scope="module")
def blk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return kernels.build("blk", tmp_path_factory.mktemp("kernels"))


def function(number: int) -> bytes:
    """A page that is a function: it returns ``number`` times a constant, plus 1, from its second block."""
    entry = b"\xb8" + (number * 0x9E3779B1 % 2**32).to_bytes(4, "little")  # mov $value, %eax
    entry += b"\xe9" + (2048 - len(entry) - 5).to_bytes(4, "little")  # jmp to the page's middle
    return entry.ljust(2048, b"\xcc") + b"\xff\xc0\xc3".ljust(2048, b"\xcc")  # inc %eax; ret


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize("way", ["code", "code persistent"])
def test_code_from_the_disk_is_what_is_executed(
    machine: Machine, blk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str, at_once: bool
) -> None:
    """10 000 times a frame gets another function from the disk: what the engine had translated is never used again,
    whether Domain 0's own thread has read the frames or one of those for I/O."""
    if not at_once:
        monkeypatch.setattr(RawImage, "read_at_once", lambda *_: False)
    path = tmp_path / "disk"
    path.write_bytes(b"".join(map(function, range(DISK_SIZE // 4096))))
    domain = machine.create(blk, cmdline=way, memory=8, devices=[disk_spec(path, "xvda")])
    assert domain.wait(PATIENCE) is ShutdownReason.POWEROFF
    assert "blk: 10000 pages of code executed, 0 of them wrong\n" in text(domain), text(domain)


def disk(path: Path) -> DeviceSpec:
    path.write_bytes(bytes(DISK_SIZE))
    return disk_spec(path, "xvda")


def start(machine: Machine, blk: Path, way: str, path: Path, vcpus: int = 1) -> Domain:
    return machine.create(blk, cmdline=way, memory=8, name=way, vcpus=vcpus, devices=[disk(path)])


def text(domain: Domain) -> str:
    return domain.console.output.decode()


ENDINGS = {
    "noise": 4, "indices": 5, "twist": 4, "greedy": 5, "events": 4, "good": 4, "noise persistent": 4,
    # Who never takes a response is not there: its requests are answered at once, so that it never has too many.
    "indices persistent": 5, "twist persistent": 4, "events persistent": 4, "good persistent": 4,
}  # fmt: skip


@pytest.mark.parametrize(("way", "state"), ENDINGS.items())
def test_a_hostile_frontend_harms_itself_only(
    machine: Machine, blk: Path, tmp_path: Path, way: str, state: int
) -> None:
    """The other one's disk works, every reference is where it belongs, and it is disconnected if the ring is wrong;
    also where its physical CPU serves the ring, which it does with grants that stay mapped."""
    hostile = start(machine, blk, way, tmp_path / "hostile")
    good = start(machine, blk, "good", tmp_path / "good")
    assert good.wait(PATIENCE) is ShutdownReason.POWEROFF
    assert "TEST blk: PASS" in text(good), text(good)
    check(machine, "beside a hostile frontend")
    assert hostile.wait(PATIENCE) is ShutdownReason.POWEROFF
    assert f"the backend's state is {state}\n" in text(hostile), text(hostile)
    assert "TEST blk: PASS" in text(hostile), text(hostile)
    assert is_as_the_good_one_left_it(tmp_path / "good")
    wait_for(lambda: not machine.call(lambda: machine.devices.of(hostile.domid)), "its device goes")


def is_as_the_good_one_left_it(path: Path) -> bool:
    """Whether it wrote what it said that it would, and nobody else did."""
    round_ = 39
    sector = round_ * 97 % (DISK_SIZE // 512 - 64)
    written = path.read_bytes()[sector * 512 :][: 8 * 4096]
    return written == b"".join(bytes([(round_ * 11 + page) % 256]) * 4096 for page in range(8))


# More vcpus than there are physical CPUs meet less often.
@pytest.mark.parametrize(("engine", "vcpus"), [("unicorn", 3), ("kvm", 2)])
@pytest.mark.parametrize("way", ["storm", "storm persistent", "storm flicker persistent"])
def test_what_other_vcpus_change_meanwhile_harms_their_own_domain_only(
    engine: str, vcpus: int, blk: Path, tmp_path: Path, way: str
) -> None:
    """Requests, what describes them, the ring's index, grants and memory change while the backend looks at them, in
    another thread than the guest's or, on KVM, while one of the guest's own threads serves the ring: nothing but what
    the guest itself had there is found on its disk and in its memory, and every reference is where it belongs."""
    try:
        choose(engine, 1)
    except UserError as error:
        pytest.skip(str(error))
    with Machine(memory=64, pcpus=2, engine=engine) as machine, audited(machine):
        hostile = start(machine, blk, way, tmp_path / "hostile", vcpus)
        good = start(machine, blk, "good", tmp_path / "good")
        assert good.wait(PATIENCE) is ShutdownReason.POWEROFF
        assert "TEST blk: PASS" in text(good), text(good)
        check(machine, "beside a hostile frontend")
        assert hostile.wait(PATIENCE) is ShutdownReason.POWEROFF
        states = {4, 5} if "flicker" in way else {4}
        assert text(hostile) in {f"blk: the backend's state is {state}\nTEST blk: PASS\n" for state in states}
        assert is_as_the_good_one_left_it(tmp_path / "good")
        written = (tmp_path / "hostile").read_bytes()
        assert set(written) <= {0, 0x5A} and len(written) == DISK_SIZE
        wait_for(lambda: not machine.call(lambda: machine.devices.of(hostile.domid)), "its device goes")
