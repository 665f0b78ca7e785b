"""What the KVM engine does when the host's KVM does not go on: one domain ends, with a sentence, and no other."""

from __future__ import annotations

import fcntl
import gc
import os
import resource
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from paravirt import Domain, Machine, ShutdownReason, UserError
from paravirt.errors import HypervisorBug
from paravirt.machine.choice import choose, kvm_host
from paravirt.machine.kvm import selftest
from paravirt.machine.kvm.engine import MAX_LEAVES

from ..guests.test_guests import built
from ..hypervisor.audited import audited
from ..oracle import kernels
from ..patience import PATIENCE

__all__ = ["built"]

KVM_SET_USER_MEMORY_REGION = 0x4020AE46
SYSTEM_CALLS = 2
"""In the statistics: the kind of exit that hypercalls are, and processes' system calls."""
KICKED = 6
"""And that of kicks."""
SET_TIMER = b"\xbf\x08\0\0\0\x31\xf6\xba\0\x50\0\0\xb8\x18\0\0\0\x0f\x05"
"""mov $8, %edi; xor %esi, %esi; mov $0x5000, %edx; mov $24, %eax; syscall: VCPUOP_set_singleshot_timer to 1."""
IRET = 23
TRAMPOLINE = 1
"""The memory slot of the engine's own pages."""
UNMASKED = 0xFFFF_8100_0000_3680
"""Where the stub is that makes a return, when it has just let events come (STUB_RETURN_COMMITTED in trampoline.h)."""
FAULT_THERE = b"\x48\xb8\0\0\0\0\0\0\0\x80\x48\xbb" + UNMASKED.to_bytes(8, "little") + b"\xff\xe3"
"""movabs $0x8000000000000000, %rax; movabs $UNMASKED, %rbx; jmp *%rbx: the stub looks for events where nothing is."""


@pytest.fixture
def machine() -> Iterator[Machine]:
    try:
        choose("kvm", 1)
    except UserError as error:
        pytest.skip(str(error))
    with Machine(memory=128, engine="kvm", pcpus=1) as made, audited(made):
        yield made


@pytest.fixture
def kernel(built: Path) -> Path:
    return kernels.ready("hostile", built)


def descriptors(kind: str) -> set[int]:
    """The open files of this process that KVM made, by their kind: `kvm-vm`, `kvm-vcpu:0`."""
    gc.collect()  # or a number of an earlier test's may be used again
    found = set()
    for entry in Path("/proc/self/fd").iterdir():
        try:
            if str(entry.readlink()) == f"anon_inode:{kind}":
                found.add(int(entry.name))
        except OSError:  # that of the listing itself
            continue
    return found


def spinning(machine: Machine, kernel: Path) -> Domain:
    """A domain that loops with events masked."""
    domain = machine.create(kernel=kernel, cmdline="loop", memory=16)
    domain.console.expect("going to end by: loop", PATIENCE)
    return domain


def crashed(domain: Domain) -> str:
    assert domain.wait(PATIENCE) is ShutdownReason.CRASH
    report = domain.crash_report
    assert report is not None
    return report


def test_a_vcpu_that_the_host_refuses_to_run(machine: Machine, kernel: Path) -> None:
    other = spinning(machine, kernel)
    before = descriptors("kvm-vcpu:0")
    domain = spinning(machine, kernel)
    (newest,) = descriptors("kvm-vcpu:0") - before
    domain.pause()
    with Path(os.devnull).open() as nothing:
        os.dup2(nothing.fileno(), newest)
    domain.unpause()
    assert "the host's KVM refuses to run it (0x19)" in crashed(domain)  # ENOTTY
    assert not other.ended
    domain.destroy()
    assert not spinning(machine, kernel).ended


def test_a_processor_that_shuts_down(machine: Machine, kernel: Path) -> None:
    """Without the engine's own pages no exception and no system call can be delivered."""
    before = descriptors("kvm-vm")
    domain = machine.create(kernel=kernel, cmdline="loop", memory=16, paused=True)
    (vm,) = descriptors("kvm-vm") - before
    fcntl.ioctl(vm, KVM_SET_USER_MEMORY_REGION, struct.pack("<IIQQQ", TRAMPOLINE, 0, 0, 0, 0))
    domain.unpause()
    report = crashed(domain)
    assert "its processor shut down" in report or "the host's KVM cannot go on with it" in report
    domain.destroy()
    assert not spinning(machine, kernel).ended


def test_no_more_open_files(machine: Machine, kernel: Path) -> None:
    domain = spinning(machine, kernel)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    held: list[int] = []
    said = []
    try:
        with suppress(OSError):
            while True:
                held.append(os.dup(0))
        made = None
        while made is None:
            try:
                made = machine.create(kernel=kernel, cmdline="loop", memory=4)
            except UserError as error:
                said.append(str(error))
                os.close(held.pop())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for number in held:
            os.close(number)
    assert said[-1] == "The CPU engine has no room for another virtual CPU."
    assert not domain.ended
    assert not spinning(machine, kernel).ended


BREAKING = ("jump", "stack", "zerostack", "wildstack", "wildjump", "hole", "handler", "notables", "nostack", "iret",
            "event", "unmap")  # fmt: skip
"""Ways in which `hostile` breaks its stacks, its tables, its handlers, or runs where nothing is."""


def test_guests_that_break_what_they_stand_on_crash_alone(machine: Machine, kernel: Path) -> None:
    witness = spinning(machine, kernel)
    for way in BREAKING:
        domain = machine.create(kernel=kernel, cmdline=way, memory=16)
        assert "rip" in crashed(domain), way
        domain.destroy()
    assert not witness.ended
    witness.destroy()


def test_a_loop_with_events_masked_is_stopped_whenever_somebody_wants_it(machine: Machine, kernel: Path) -> None:
    domain, other = spinning(machine, kernel), spinning(machine, kernel)
    for _ in range(20):
        domain.pause()
        end = time.monotonic() + PATIENCE
        while machine.host.any_paused_vcpu_on_cpu():
            assert time.monotonic() < end
        domain.unpause()
    domain.destroy()
    assert domain.ended
    assert not other.ended
    other.destroy()
    assert not machine.domains


def test_a_table_of_cpuid_that_does_not_fit_is_ours(machine: Machine) -> None:
    table = {(leaf, None): (0, 0, 0, 0) for leaf in range(MAX_LEAVES + 1)}
    with pytest.raises(HypervisorBug, match="65 leaves"):
        machine.engines[0].set_cpuid(table)


def test_the_cheapest_method_that_is_right_makes_changes_of_page_tables_known(machine: Machine) -> None:
    host = kvm_host()
    chosen = {name: host[name] for name in selftest.TABLES[0]}
    for method in selftest.TABLES:
        findings = {**selftest.SAFE, "user_stubs": host["user_stubs"], **method}
        right = all(selftest.trial(findings, test) for test in selftest.TABLE_TESTS)
        assert right == (method == chosen)
        if right:
            break


def test_a_host_on_which_no_method_is_right_is_refused(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selftest, "TABLES", ())
    with pytest.raises(UserError, match="a change of a page table does not reach the guest"):
        selftest.probe()


def ended(machine: Machine, kernel: Path, memory: int, said: bytes) -> dict[str, Any]:
    """The statistics after a kernel that has said that, among other lines, and powered off."""
    domain = machine.create(kernel=kernel, memory=memory)
    assert domain.wait(PATIENCE) is ShutdownReason.POWEROFF
    assert said in domain.console.output.replace(b"\r", b"")
    return machine.stats()


@pytest.mark.usefixtures("shortcuts")
@pytest.mark.parametrize("engine", ["kvm", "kvm-exact"])
def test_a_tick_is_set_anew_without_an_exit_unless_exactness_is_asked_for(engine: str, built: Path) -> None:
    with Machine(memory=64, engine=engine, pcpus=1) as machine, audited(machine):
        stats = ended(machine, kernels.ready("tick", built), 16, b"a tick of 3 ms, 20 times: 0 wrong\n")
        made = sum(count for count, _ in stats["hypercalls"].values())
        assert (made > stats["exits"][SYSTEM_CALLS]) is (engine == "kvm")


def gone_back(found: dict[str, int], kernel: bytes = selftest.IRET, process: bytes = selftest.UNDEFINED) -> Any:
    """What a kernel of a scratch machine comes to that goes back to a process."""
    return selftest.trial(found, lambda bench: bench.go_back(kernel, process))


@pytest.fixture
def returning(shortcuts: None) -> dict[str, int]:
    """Findings of this host with which a guest's kernel goes back to its process without an exit."""
    host: dict[str, Any] = kvm_host()
    found = {name: int(host[name]) for name in selftest.SAFE} | {"returns": 1}
    if host["real_selectors"] or gone_back(found)[0][0] == SYSTEM_CALLS:
        pytest.skip("here no kernel can go back to its process without an exit")
    return found


def test_a_table_that_was_a_kernels_shows_a_process_nothing_of_the_stubs(returning: dict[str, int]) -> None:
    stop, user, returned, *_ = gone_back(returning, process=selftest.READ_QUEUE)
    assert stop[:4] == (0, 14, 4, selftest.QUEUE)
    assert (user, returned) == (1, 1)


def test_a_kernel_that_has_changed_its_gs_by_itself_goes_back_with_an_exit(returning: dict[str, int]) -> None:
    stop, user, *_ = gone_back(returning, kernel=selftest.NULL_GS + selftest.IRET)
    assert (stop[0], user) == (SYSTEM_CALLS, 0)


def test_what_a_kernel_did_before_it_went_back_survives_who_holds_the_engine(returning: dict[str, int]) -> None:
    """The hypervisor hears of it before the process goes on."""

    def held(bench: Any) -> Any:
        done: list[Any] = []
        loops = b"\xeb\xfe"
        runner = threading.Thread(target=lambda: done.append(bench.go_back(SET_TIMER + selftest.IRET, loops)))
        runner.start()
        while runner.is_alive():
            bench.hold()
        return *done[0], bench.timer_set

    trial: Any = selftest.trial
    for _ in range(100):
        stop, user, returned, *_, timer = trial(returning, held)
        if (stop[0], user) != (KICKED, 0):  # the second signal of a hold that met an exception on its way is a kick
            break
    assert (stop[0], user, returned, timer) == (KICKED, 1, 1, 1)


@pytest.mark.usefixtures("shortcuts")
@pytest.mark.parametrize("engine", ["kvm", "kvm-exact"])
def test_a_kernel_goes_back_to_its_process_without_an_exit_unless_exactness_is_asked_for(
    engine: str, built: Path
) -> None:
    if not kvm_host()["returns"]:
        pytest.skip("here each return to a process is an exit")
    with Machine(memory=64, engine=engine, pcpus=1) as machine, audited(machine):
        stats = ended(machine, kernels.ready("returns", built), 32, b"\nsystem calls, 3000 times: 0 wrong\n")
        made = sum(count for count, _ in stats["hypercalls"].values()) + stats["system_calls"]
        answered = made - stats["exits"][SYSTEM_CALLS]
        # Of its traps 15 of 16 are gone back from with nothing in between, and nearly all with a vcpu_info of its own.
        assert (answered > stats["hypercalls"][IRET][0] // 2) is (engine == "kvm")
        assert answered >= 0


def test_no_process_goes_on_before_somebody_looks_for_events_that_were_unmasked(returning: dict[str, int]) -> None:
    stop, user, returned, *_ = gone_back(returning, kernel=FAULT_THERE)
    assert (stop, user, returned) == ((KICKED, 0, 0, 0, selftest.PROCESS - selftest.CODE), 1, 1)
