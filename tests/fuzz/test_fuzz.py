"""A short run of the fuzzer: the long one is `scripts/fuzz` (docs/security.md)."""

from __future__ import annotations

from pathlib import Path

import pytest

from paravirt.errors import HypervisorBug

from ..oracle import kernels
from .names import PT_WRITE, WILD, name_of
from .runner import Counts, Fuzzer, Outcome, no_traceback

CALLS = 60_000
SEED = 11
HYPERVISOR_iret = 23  # ends most of those that call it at random; trap handlers use it all the time


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return kernels.build("fuzz", tmp_path_factory.mktemp("fuzz"))


@pytest.fixture(scope="module")
def outcome(kernel: Path) -> Outcome:
    """A run in deterministic mode: what it comes to does not change until the hypervisor or the fuzzer do."""
    return Fuzzer(kernel, domains=1, calls_each=20_000, deterministic=True).run(CALLS, SEED)


def test_nothing_gives(outcome: Outcome) -> None:
    """The runner raises for exceptions, unclean audits and changed memory of a bystander."""
    assert outcome.calls >= CALLS
    assert outcome.hypercalls >= CALLS * 0.9  # page-table writes and selector loads are none
    assert outcome.audits >= 2 * outcome.domains
    assert outcome.early + len(outcome.crashes) <= outcome.domains // 3  # most live to make all their calls


def test_every_hypercall_is_called(outcome: Outcome) -> None:
    called = {op for op, _ in outcome.table}
    assert set(range(43)) - {HYPERVISOR_iret} <= called


# What a guest like ours is refused whatever it asks, and what it can do only once, or does only by luck: the others
# have to succeed often enough for the checks behind the first ones to be reached.
SELDOM = (
    "EVTCHNOP_bind_pirq", "EVTCHNOP_reset", "EVTCHNOP_init_control", "EVTCHNOP_expand_array", "EVTCHNOP_set_priority",
    "SCHEDOP_shutdown", "SCHEDOP_remote_shutdown", "SCHEDOP_pin_override",
    "VCPUOP_initialise", "VCPUOP_register_vcpu_info", "VCPUOP_get_physid",
    "PHYSDEVOP_", "HVMOP_", "XENMEM_access_rx2rw",
    "XENMEM_add_to_physmap", "XENMEM_machine_memory_map", "XENMEM_remove_from_physmap", "XENMEM_set_pod_target",
    "XENMEM_get_pod_target", "XENMEM_paging_op", "XENMEM_access_op", "XENMEM_sharing_op",
    "XENMEM_claim_pages", "XENMEM_machphys_compat_mfn_list", "XENMEM_get_vnumainfo", "XENMEM_acquire_resource",
    "XENVER_build_id", "MMUEXT_FLUSH_CACHE", "MMUEXT_MARK_SUPER", "MMUEXT_UNMARK_SUPER",
    "GNTTABOP_dump_table",
)  # fmt: skip
REFUSED = (
    "platform_op", "console_io", "xsm_op", "xenoprof_op", "sysctl", "domctl", "kexec_op", "tmem_op", "argo_op",
    "xenpmu_op", "dm_op", "hypfs_op", "arch_",
)  # fmt: skip


def test_most_calls_get_past_the_first_checks(outcome: Outcome) -> None:
    poor = []
    for (op, sub), counts in outcome.table.items():
        name = name_of(op, sub)
        if sub > PT_WRITE or counts.calls < 100 or counts.good >= 0.2 * counts.calls:
            continue
        no_such = name.split()[-1].isdecimal() or name.endswith("command)")  # a number that is no sub-operation
        if not no_such and not name.startswith(REFUSED) and not any(word in name for word in SELDOM):
            poor.append(f"{name}: {counts.good} of {counts.calls}")
    assert not poor


def test_page_tables_are_written_to(outcome: Outcome) -> None:
    written = {sub: counts for (_, sub), counts in outcome.table.items() if sub > WILD}
    assert set(written) == set(range(PT_WRITE + 2, PT_WRITE + 8))
    assert all(counts.good for counts in written.values())


def test_several_domains_at_a_time(kernel: Path) -> None:
    outcome = Fuzzer(kernel, domains=2, calls_each=4000, audit_every=0.2).run(8000, SEED)
    assert outcome.domains >= 2


def test_a_mistake_is_found(kernel: Path) -> None:
    """A service or handler that raises, and prints a traceback, ends the run."""
    fuzzer = Fuzzer(kernel, domains=1, calls_each=2000, deterministic=True)
    fuzzer._check = broken_check(fuzzer)  # type: ignore[method-assign]
    with pytest.raises(HypervisorBug, match=r"an exception reached the machine(.|\n)*ZeroDivisionError"):
        fuzzer.run(2000, SEED)


def broken_check(fuzzer: Fuzzer):  # type: ignore[no-untyped-def]
    check = fuzzer._check

    def wrapped(machine, bugs, occasion):  # type: ignore[no-untyped-def]
        import traceback

        try:
            raise ZeroDivisionError
        except ZeroDivisionError:
            traceback.print_exc()
        check(machine, bugs, occasion)

    return wrapped


def test_tables_that_a_domain_has_spoiled_do_not_count(kernel: Path) -> None:
    fuzzer = Fuzzer(kernel)
    fuzzer._count("SLOT 1 0 10 4\nSLOT 1 0 5 9\nSLOT 99999 0 5 1\nSLOT 1 0 99999999999 1\nnoise\nSLOT 1 0\n")
    assert fuzzer.outcome.table == {(1, 0): Counts(10, 4)}
    assert fuzzer.outcome.calls == 10


def test_tracebacks_are_seen() -> None:
    import traceback

    with no_traceback() as seen:
        try:
            raise KeyError("here")
        except KeyError:
            traceback.print_exc()
    assert len(seen) == 1
    assert "KeyError: 'here'" in seen[0]


def test_names() -> None:
    assert name_of(26, 5) == "mmuext_op MMUEXT_NEW_BASEPTR"
    assert name_of(12, 11) == "memory_op XENMEM_exchange"
    assert name_of(2, 0) == "set_gdt"
    assert name_of(63, WILD).endswith("(anything at all)")
