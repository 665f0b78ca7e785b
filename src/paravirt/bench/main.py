"""``paravirt bench``: the command line, and the order in which everything is measured.

Contenders take turns within each run, so that a machine that becomes slower meanwhile is slower for all of them.
"""

from __future__ import annotations

import datetime
import fnmatch
import os
import platform
import signal
from collections.abc import Callable, Iterable
from pathlib import Path
from types import FrameType

import click
from rich.console import Console

from paravirt.bench import rows as known
from paravirt.bench.peers import Peer, available
from paravirt.bench.plots import draw
from paravirt.bench.results import NATIVE, PARAVIRT, Results, Row, table, write_json
from paravirt.errors import HypervisorBug, UserError

DEFAULT_RUNS = 5
QUICK_RUNS = 1
TRAPS_PER_ROW = 200_000
QUICK_TRAPS = 20_000
QUICK_ROW_MS = 20
READS = 50_000
QUICK_READS = 2000
ISOLATION_ROW_MS = 2000
QUICK_ISOLATION_ROW_MS = 200
HOSTING_S = 10.0
QUICK_HOSTING_S = 1.0


class Suite:
    """One run of the suite over the rows that ``pattern`` selects."""

    def __init__(self, runs: int, quick: bool, pattern: str, peers: Iterable[Peer], say: Callable[[str], None]) -> None:
        self.quick = quick
        self.say = say
        self.peers = list(peers)
        now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d")
        host = f"{os.cpu_count()} CPUs, {platform.system()} {platform.release()}, Python {platform.python_version()}"
        self.results = Results(now, host, runs)
        self.results.rows = [row for row in known.rows() if fnmatch.fnmatchcase(row.name, pattern)]
        if not self.results.rows:
            names = ", ".join(row.name for row in known.rows())
            raise UserError(f"No row is called {pattern!r}; there are {names}.")
        self._rows: dict[str, Row] = {row.name: row for row in self.results.rows}
        self._given_up: set[str] = set()

    def run(self) -> Results:
        """Measure everything; what cannot be had is noted in the results, with its reason."""
        sections = dict.fromkeys(row.section for row in self.results.rows)
        for turn in range(self.results.runs):
            for section in sections:
                self.say(f"run {turn + 1} of {self.results.runs}: {section}")
                getattr(self, f"_{section}")()
        self.results.rows = [row for row in self.results.rows if row.samples]
        return self.results

    def _attempt(self, what: str, action: Callable[[], None]) -> None:
        """Do one measurement, unless it failed before: then it is not tried again."""
        if what in self._given_up:
            return
        try:
            action()
        except (UserError, HypervisorBug, OSError) as error:
            self._given_up.add(what)
            self.results.skipped[what] = str(error)

    def _add(self, name: str, contender: str, value: float) -> None:
        if name in self._rows:
            self._rows[name].add(contender, value)

    # --- sections ----------------------------------------------------------------------------------------------

    def _boot(self) -> None:
        from paravirt.bench import boots
        from paravirt.bench.guestprogram import ramdisk
        from paravirt.guestkernels import obtain

        def ours(row: str, guest: str) -> None:
            found = boots.boot(obtain(guest, self.say).path, ramdisk("boot"))
            self._add(row, PARAVIRT, found.seconds)
            if row == "boot":
                self._add("boot_handlers", PARAVIRT, 100 * found.handlers_share)

        if "boot" in self._rows or "boot_handlers" in self._rows:
            self._attempt("boot", lambda: ours("boot", "debian"))
        if "boot" in self._rows:
            for peer in self._usable_peers():
                self._attempt(f"boot: {peer.name}", lambda: self._add("boot", peer.name, peer.boot(ramdisk("boot"))))  # noqa: B023
        if "boot_cloud" in self._rows:
            self._attempt("boot_cloud", lambda: ours("boot_cloud", "debian-cloud"))

    def _hello(self) -> None:
        from paravirt.bench import boots
        from paravirt.domain0.toolstack import Machine
        from paravirt.guestkernels import obtain

        def in_a_process() -> None:
            self._add("hello_process", PARAVIRT, 1000 * boots.hello_process(obtain("tiny").path))

        def in_a_machine() -> None:
            with Machine(memory=64) as machine:
                self._add("hello_domain", PARAVIRT, 1000 * boots.hello_domain(machine, obtain("tiny").path))

        if "hello_process" in self._rows:
            self._attempt("hello_process", in_a_process)
        if "hello_domain" in self._rows:
            self._attempt("hello_domain", in_a_machine)

    def _traps(self) -> None:
        from paravirt.bench import trapcosts
        from paravirt.domain0.toolstack import Machine

        count = QUICK_TRAPS if self.quick else TRAPS_PER_ROW

        def one(machine: Machine, trap: str) -> None:
            if any(f"trap_{trap}{kind}" in self._rows for kind in ("", "_handler")):
                cost = trapcosts.measure(machine, trap, count)
                self._add(f"trap_{trap}", PARAVIRT, cost.round_trip_ns)
                self._add(f"trap_{trap}_handler", PARAVIRT, cost.handler_ns)
            if f"trap_{trap}_busy" in self._rows:
                with trapcosts.busy_python_thread():
                    cost = trapcosts.measure(machine, trap, count)
                self._add(f"trap_{trap}_busy", PARAVIRT, cost.round_trip_ns)

        def every() -> None:
            with Machine(memory=64) as machine:
                for trap in trapcosts.TRAPS:
                    self._attempt(f"traps: {trap}", lambda: one(machine, trap))  # noqa: B023
                self._add("trap_longest", PARAVIRT, machine.stats()["most_handler_ns"] / 1000)

        self._attempt("traps", every)

    def _guest(self) -> None:
        from paravirt.bench import boots
        from paravirt.bench.guestprogram import ramdisk, run_natively
        from paravirt.guestkernels import obtain

        def add(contender: str, values: dict[str, float]) -> None:
            for name, value in values.items():
                self._add(name, contender, value)

        def ours() -> None:
            report = boots.micro(obtain("debian", self.say).path, ramdisk("micro"))
            add(PARAVIRT, report.values)
            for name, reason in report.skipped.items():
                self.results.skipped[f"{name} ({PARAVIRT})"] = reason

        names = [row.name for row in self.results.rows if row.section == "guest"]
        self._attempt("guest", ours)
        row_ms = QUICK_ROW_MS if self.quick else None
        self._attempt("guest: native", lambda: add(NATIVE, run_natively(names, row_ms).values))
        for peer in self._usable_peers():
            self._attempt(f"guest: {peer.name}", lambda: add(peer.name, peer.micro(ramdisk("micro"))))  # noqa: B023

    def _disk(self) -> None:
        from paravirt.bench import disks
        from paravirt.bench.guestprogram import ramdisk
        from paravirt.guestkernels import obtain

        def add(contender: str, values: dict[str, float]) -> None:
            for name, value in values.items():
                self._add(name, contender, value)

        def ours() -> None:
            found = disks.measure(obtain("debian", self.say).path, ramdisk("disk"))
            add(PARAVIRT, found.report.values)
            self._add("disk_domain0", PARAVIRT, found.service_us_per_mb)

        def theirs(peer: Peer) -> None:
            with disks.scratch_disk() as path:
                add(peer.name, peer.disk(ramdisk("disk"), path))

        self._attempt("disk", ours)
        for peer in self._usable_peers():
            if peer.has_devices:
                self._attempt(f"disk: {peer.name}", lambda: theirs(peer))  # noqa: B023

    def _network(self) -> None:
        from paravirt.bench import networks
        from paravirt.bench.guestprogram import ramdisk
        from paravirt.guestkernels import obtain

        def add(contender: str, values: dict[str, float]) -> None:
            for name, value in values.items():
                self._add(name, contender, value)

        def ours() -> None:
            found = networks.measure(obtain("debian", self.say).path, ramdisk("network"))
            add(PARAVIRT, found.report.values)
            self._add("net_domain0", PARAVIRT, found.service_us_per_mb)

        def beside_a_flood() -> None:
            add(PARAVIRT, networks.isolation(obtain("debian", self.say).path, ramdisk("network")))

        def theirs(peer: Peer) -> None:
            with networks.host_server():
                add(peer.name, peer.network(ramdisk("network")))

        if any(row.startswith("net_flooded_") for row in self._rows):
            self._attempt("network: flooded", beside_a_flood)
        if all(row.name.startswith("net_flooded_") for row in self.results.rows if row.section == "network"):
            return
        self._attempt("network", ours)
        for peer in self._usable_peers():
            if peer.has_devices:
                self._attempt(f"network: {peer.name}", lambda: theirs(peer))  # noqa: B023

    def _store(self) -> None:
        from paravirt.bench import stores

        def reads() -> None:
            found = stores.measure(QUICK_READS if self.quick else READS)
            self._add("xs_read_pipelined", PARAVIRT, found.pipelined_us)
            self._add("xs_read_single", PARAVIRT, found.single_us)

        self._attempt("store", reads)

    def _hosting(self) -> None:
        from paravirt.bench import hosting

        seconds = QUICK_HOSTING_S if self.quick else HOSTING_S

        def wanted(name: str, action: Callable[[], None]) -> None:
            if any(row == f"hosting_{name}" or row.startswith(f"hosting_{name}_") for row in self._rows):
                self._attempt(f"hosting: {name}", action)

        def wake(policy: str) -> None:
            found = hosting.wakeups(policy, int(40 * seconds))
            self._add(f"hosting_wake_{policy}", PARAVIRT, found.median_us)
            self._add(f"hosting_wake_{policy}_p99", PARAVIRT, found.p99_us)

        def switch() -> None:
            to_another, back = hosting.switch_us(seconds / 5)
            self._add("hosting_switch", PARAVIRT, to_another)
            self._add("hosting_yield", PARAVIRT, back)

        def work() -> None:
            alone = hosting.efficiency(seconds / 2, 1)
            for count in hosting.MANY:
                if f"hosting_work_{count}" in self._rows:
                    together = hosting.efficiency(seconds / 2, count)
                    self._add(f"hosting_work_{count}", PARAVIRT, 100 * together / alone)

        def two() -> None:
            each = seconds / 2
            ours = hosting.throughput(each, 2, pcpus=2) / hosting.throughput(each, 1, pcpus=2)
            self._add("hosting_two", PARAVIRT, ours)
            native = hosting.native_throughput(each, 2) / hosting.native_throughput(each, 1)
            self._add("hosting_two", NATIVE, native)

        for policy in hosting.POLICIES:
            wanted(f"share_{policy}", lambda: self._add(
                f"hosting_share_{policy}", PARAVIRT, hosting.worst_share(policy, seconds)))  # noqa: B023  # fmt: skip
            wanted(f"wake_{policy}", lambda: wake(policy))  # noqa: B023
        wanted("cap", lambda: self._add("hosting_cap", PARAVIRT, hosting.cap_error(seconds)))
        wanted("switch", switch)
        wanted("work", work)
        wanted("two", two)

    def _isolation(self) -> None:
        from paravirt.bench import isolation

        def ours() -> None:
            for name, loss in isolation.measure(QUICK_ISOLATION_ROW_MS if self.quick else ISOLATION_ROW_MS).items():
                self._add(f"isolation_{name}", PARAVIRT, loss.cost)
                self._add(f"isolation_{name}_spread", PARAVIRT, loss.spread)

        self._attempt("isolation", ours)

    def _crowd(self) -> None:
        """Once only: the machine fills up slowly."""
        from paravirt.bench import crowd

        def fill(kind: str, measured: Iterable[crowd.Crowd]) -> None:
            for found in measured:
                name = f"crowd_{kind}_{found.domains}"
                self._add(f"{name}_start", PARAVIRT, found.per_second)
                self._add(f"{name}_own", PARAVIRT, found.own_kib)
                self._add(f"{name}_answer", PARAVIRT, found.answer_us)

        if any(row.samples for row in self.results.rows if row.section == "crowd"):
            return
        if small := self._marks("small"):
            self._attempt("crowd: small", lambda: fill("small", crowd.small(small)))
        if linux := self._marks("linux"):
            self._attempt("crowd: linux", lambda: fill("linux", crowd.linux(linux, self.say)))

    def _marks(self, kind: str) -> tuple[int, ...]:
        """How many domains are wanted at a time: those that rows are about, and with --quick not too many."""
        from paravirt.bench import crowd

        every = {"small": crowd.SMALL, "linux": crowd.LINUX}[kind]
        quick = {"small": crowd.QUICK_SMALL, "linux": crowd.QUICK_LINUX}[kind]
        marks = quick if self.quick else every
        return tuple(mark for mark in marks if any(row.startswith(f"crowd_{kind}_{mark}_") for row in self._rows))

    def _usable_peers(self) -> list[Peer]:
        usable = []
        for peer in self.peers:
            if peer.skipped_reason:
                self.results.skipped[peer.name] = peer.skipped_reason
            else:
                usable.append(peer)
        return usable


def report(results: Results, console: Console) -> None:
    """Print the table, what was met and missed, and what was skipped."""
    console.print(table(results))
    for verdict in ("met", "missed", "not judged"):
        names = [row.name for row in results.rows if row.targets and row.verdict == verdict]
        if names:
            console.print(f"{verdict}: {', '.join(names)}", highlight=False, markup=False)
    for what, reason in results.skipped.items():
        console.print(f"skipped: {what}: {reason}", highlight=False, markup=False)


@click.command(name="bench", context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--quick", is_flag=True, help="One run, with short loops: for a first look.")
@click.option("--runs", metavar="N", type=click.IntRange(min=1, max=1000),
              help=f"How often to measure each row (default {DEFAULT_RUNS}).")  # fmt: skip
@click.option("--rows", "pattern", metavar="PATTERN", default="*", help="Only rows like this, as in 'trap_*'.")
@click.option("--peers", is_flag=True, help="Compare with real Xen and others, installed when they are missing.")
@click.option("--json", "file", metavar="FILE", type=click.Path(path_type=Path), help="Write all figures there.")
@click.option("--plots", metavar="FOLDER", type=click.Path(path_type=Path, file_okay=False),
              help="Draw rows about many domains there, as PNG and SVG (needs matplotlib).")  # fmt: skip
def bench(quick: bool, runs: int | None, pattern: str, peers: bool, file: Path | None, plots: Path | None) -> int:
    """Measure boots, traps and system calls.

    Targets that are missed are shown as such; the exit status is 0 all the same.
    """
    errors = Console(stderr=True, highlight=False)
    if file is not None and (file.is_dir() or not os.access(file if file.exists() else file.parent, os.W_OK)):
        raise UserError(f"The file {file} cannot be written.")

    def say(text: str) -> None:
        errors.print(text, markup=False)

    contenders = available(report=say) if peers else ()
    suite = Suite(runs or (QUICK_RUNS if quick else DEFAULT_RUNS), quick, pattern, contenders, say)
    if not peers:
        suite.results.skipped["peers"] = "not asked for with --peers"
    results = suite.run()
    # Where output is no terminal, a narrow table would lose columns.
    report(results, Console() if Console().is_terminal else Console(width=200))
    if file is not None:
        write_json(results, file)
    if plots is not None:
        for drawn in draw(results, plots):
            say(f"drawn: {drawn}")
    return 0


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt(number)


def run(args: list[str]) -> int:
    """Run the suite with these arguments; the exit status.

    Processes and machines that it started are gone when this returns or raises, also after a signal.

    Raises:
        UserError: a row, a file or a peer that cannot be had.
        click.ClickException: bad usage.
    """
    previous = signal.signal(signal.SIGTERM, _interrupt)
    try:
        return int(bench.main(args, prog_name="paravirt bench", standalone_mode=False) or 0)
    finally:
        signal.signal(signal.SIGTERM, previous)
