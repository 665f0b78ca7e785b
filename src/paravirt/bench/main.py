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
from functools import partial
from pathlib import Path
from types import FrameType

import click
from rich.console import Console

from paravirt.bench import rows as known
from paravirt.bench.peers import Peer, available
from paravirt.bench.plots import draw
from paravirt.bench.results import KVM, NATIVE, OURS, PARAVIRT, Results, Row, table, write_json
from paravirt.errors import HypervisorBug, UserError
from paravirt.machine.choice import choose

ENGINES = {"unicorn": ("unicorn",), "kvm": ("kvm",), "both": ("unicorn", "kvm")}

DEFAULT_RUNS = 5
QUICK_RUNS = 1
TRAPS_PER_ROW = 200_000
QUICK_TRAPS = 20_000
QUICK_ROW_MS = 20
READS = 50_000
QUICK_READS = 2000
ISOLATION_ROW_MS = 2000
QUICK_ISOLATION_ROW_MS = 200
TRAP_OF_KVM = 10
"""So much fewer traps are made on the KVM engine: there each costs microseconds, not fractions of one."""
HOSTING_S = 10.0
QUICK_HOSTING_S = 1.0


class Suite:
    """One run of the suite over the rows that ``pattern`` (or several, with commas) selects, on the engines that
    ``engine`` stands for.

    Raises:
        UserError: there is no such row, or none of the engines can be used here.
    """

    def __init__(
        self, runs: int, quick: bool, pattern: str, peers: Iterable[Peer], say: Callable[[str], None], engine: str
    ) -> None:
        self.quick = quick
        self.say = say
        self.peers = list(peers)
        now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d")
        host = f"{os.cpu_count()} CPUs, {platform.system()} {platform.release()}, Python {platform.python_version()}"
        self.results = Results(now, host, runs)
        wanted = pattern.split(",")
        self.results.rows = [row for row in known.rows() if any(fnmatch.fnmatchcase(row.name, one) for one in wanted)]
        if not self.results.rows:
            names = ", ".join(row.name for row in known.rows())
            raise UserError(f"No row is called {pattern!r}; there are {names}.")
        self._rows: dict[str, Row] = {row.name: row for row in self.results.rows}
        self._given_up: set[str] = set()
        self.engines = self._usable(ENGINES[engine])
        for row in self.results.rows:
            for ours, why in row.impossible.items():
                if ours in (OURS[engine] for engine in self.engines):
                    self.results.skipped[f"{row.name} ({ours})"] = why

    def _usable(self, engines: tuple[str, ...]) -> list[str]:
        usable = []
        for engine in engines:
            try:
                choose(engine, 1)
            except UserError as error:
                if len(engines) == 1:
                    raise
                self.results.skipped[OURS[engine]] = str(error)
            else:
                usable.append(engine)
        return usable

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

    def _ours(self, what: str, action: Callable[[str, str], None]) -> None:
        """Do one measurement on each engine: ``action`` is told the engine, and its contender's name."""
        for engine in self.engines:
            name = OURS[engine]
            self._attempt(what if name == PARAVIRT else f"{what}: {name}", lambda: action(engine, name))  # noqa: B023

    def _add(self, name: str, contender: str, value: float) -> None:
        if name in self._rows and contender not in self._rows[name].impossible:
            self._rows[name].add(contender, value)

    def _add_all(self, contender: str, values: dict[str, float]) -> None:
        for name, value in values.items():
            self._add(name, contender, value)

    # --- sections ----------------------------------------------------------------------------------------------

    def _boot(self) -> None:
        from paravirt.bench import boots
        from paravirt.bench.guestprogram import ramdisk
        from paravirt.guestkernels import obtain

        def generic(engine: str, name: str) -> None:
            found = boots.boot(obtain("debian", self.say).path, ramdisk("boot"), engine)
            self._add("boot", name, found.seconds)
            self._add("boot_handlers", name, 100 * found.handlers_share)
            self._add("boot_own", name, 100 * found.own_share)

        def cloud(engine: str, name: str) -> None:
            found = boots.boot(obtain("debian-cloud", self.say).path, ramdisk("boot"), engine)
            self._add("boot_cloud", name, found.seconds)

        if {"boot", "boot_handlers", "boot_own"} & self._rows.keys():
            self._ours("boot", generic)
        if "boot" in self._rows:
            for peer in self._usable_peers():
                self._attempt(f"boot: {peer.name}", lambda: self._add("boot", peer.name, peer.boot(ramdisk("boot"))))  # noqa: B023
        if "boot_cloud" in self._rows:
            self._ours("boot_cloud", cloud)

    def _hello(self) -> None:
        from paravirt.bench import boots
        from paravirt.domain0.toolstack import Machine
        from paravirt.guestkernels import obtain

        def in_a_process(engine: str, name: str) -> None:
            self._add("hello_process", name, 1000 * boots.hello_process(obtain("tiny").path, engine))

        def in_a_machine(engine: str, name: str) -> None:
            with Machine(memory=64, engine=engine) as machine:
                self._add("hello_domain", name, 1000 * boots.hello_domain(machine, obtain("tiny").path))

        if "hello_process" in self._rows:
            self._ours("hello_process", in_a_process)
        if "hello_domain" in self._rows:
            self._ours("hello_domain", in_a_machine)

    def _traps(self) -> None:
        from paravirt.bench import trapcosts
        from paravirt.domain0.toolstack import Machine

        def one(machine: Machine, trap: str, name: str, count: int) -> None:
            if any(f"trap_{trap}{kind}" in self._rows for kind in ("", "_handler")):
                cost = trapcosts.measure(machine, trap, count)
                self._add(f"trap_{trap}", name, cost.round_trip_ns)
                self._add(f"trap_{trap}_handler", name, cost.handler_ns)
            if f"trap_{trap}_busy" in self._rows:
                with trapcosts.busy_python_thread():
                    cost = trapcosts.measure(machine, trap, count)
                self._add(f"trap_{trap}_busy", name, cost.round_trip_ns)

        def every(engine: str, name: str) -> None:
            count = QUICK_TRAPS if self.quick else TRAPS_PER_ROW
            if engine == "kvm":
                count //= TRAP_OF_KVM
            with Machine(memory=64, engine=engine) as machine:
                for trap in trapcosts.TRAPS:
                    self._attempt(f"traps: {trap}: {name}", lambda: one(machine, trap, name, count))  # noqa: B023
                self._add("trap_longest", name, machine.stats()["most_handler_ns"] / 1000)

        self._ours("traps", every)

    def _guest(self) -> None:
        from paravirt.bench import boots
        from paravirt.bench.guestprogram import ramdisk, run_natively
        from paravirt.guestkernels import obtain

        def ours(engine: str, contender: str) -> None:
            report = boots.micro(obtain("debian", self.say).path, ramdisk("micro"), engine)
            self._add_all(contender, report.values)
            for name, reason in report.skipped.items():
                self.results.skipped[f"{name} ({contender})"] = reason

        names = [row.name for row in self.results.rows if row.section == "guest"]
        self._ours("guest", ours)
        row_ms = QUICK_ROW_MS if self.quick else None
        self._attempt("guest: native", lambda: self._add_all(NATIVE, run_natively(names, row_ms).values))
        for peer in self._usable_peers():
            self._attempt(f"guest: {peer.name}", lambda: self._add_all(peer.name, peer.micro(ramdisk("micro"))))  # noqa: B023

    def _disk(self) -> None:
        from paravirt.bench import disks
        from paravirt.bench.guestprogram import ramdisk
        from paravirt.guestkernels import obtain

        def ours(engine: str, name: str) -> None:
            found = disks.measure(obtain("debian", self.say).path, ramdisk("disk"), engine)
            self._add_all(name, found.report.values)
            self._add("disk_domain0", name, found.service_us_per_mb)

        def theirs(peer: Peer) -> None:
            with disks.scratch_disk() as path:
                self._add_all(peer.name, peer.disk(ramdisk("disk"), path))

        self._ours("disk", ours)
        for peer in self._usable_peers():
            if peer.has_devices:
                self._attempt(f"disk: {peer.name}", lambda: theirs(peer))  # noqa: B023

    def _network(self) -> None:
        from paravirt.bench import networks
        from paravirt.bench.guestprogram import ramdisk
        from paravirt.guestkernels import obtain

        def ours(engine: str, name: str) -> None:
            found = networks.measure(obtain("debian", self.say).path, ramdisk("network"), engine)
            self._add_all(name, found.report.values)
            self._add("net_domain0", name, found.service_us_per_mb)

        def beside_a_flood(engine: str, name: str) -> None:
            self._add_all(name, networks.isolation(obtain("debian", self.say).path, ramdisk("network"), engine))

        def theirs(peer: Peer) -> None:
            with networks.host_server():
                self._add_all(peer.name, peer.network(ramdisk("network")))

        if any(row.startswith("net_flooded_") for row in self._rows):
            self._ours("network: flooded", beside_a_flood)
        if all(row.name.startswith("net_flooded_") for row in self.results.rows if row.section == "network"):
            return
        self._ours("network", ours)
        for peer in self._usable_peers():
            if peer.has_devices:
                self._attempt(f"network: {peer.name}", lambda: theirs(peer))  # noqa: B023

    def _store(self) -> None:
        from paravirt.bench import stores

        def reads() -> None:
            found = stores.measure(QUICK_READS if self.quick else READS)
            self._add("xs_read_pipelined", PARAVIRT, found.pipelined_us)
            self._add("xs_read_single", PARAVIRT, found.single_us)

        if "unicorn" in self.engines:
            self._attempt("store", reads)

    def _hosting(self) -> None:
        from paravirt.bench import hosting

        seconds = QUICK_HOSTING_S if self.quick else HOSTING_S

        def wanted(what: str, action: Callable[[str, str], None]) -> None:
            if any(row == f"hosting_{what}" or row.startswith(f"hosting_{what}_") for row in self._rows):
                self._ours(f"hosting: {what}", action)

        def share(policy: str, engine: str, name: str) -> None:
            self._add(f"hosting_share_{policy}", name, hosting.worst_share(policy, seconds, engine))

        def cap(engine: str, name: str) -> None:
            self._add("hosting_cap", name, hosting.cap_error(seconds, engine))

        def wake(policy: str, engine: str, name: str) -> None:
            found = hosting.wakeups(policy, int(40 * seconds), engine)
            self._add(f"hosting_wake_{policy}", name, found.median_us)
            self._add(f"hosting_wake_{policy}_p99", name, found.p99_us)

        def switch(engine: str, name: str) -> None:
            to_another, back = hosting.switch_us(seconds / 5, engine)
            self._add("hosting_switch", name, to_another)
            self._add("hosting_yield", name, back)

        def work(engine: str, name: str) -> None:
            alone = hosting.efficiency(seconds / 2, 1, engine)
            for count in hosting.MANY:
                if f"hosting_work_{count}" in self._rows:
                    together = hosting.efficiency(seconds / 2, count, engine)
                    self._add(f"hosting_work_{count}", name, 100 * together / alone)

        def two(engine: str, name: str) -> None:
            one_s, two_s = (hosting.throughput(seconds / 2, count, 2, engine) for count in (1, 2))
            self._add("hosting_two", name, two_s / one_s)

        def two_vcpus(engine: str, name: str) -> None:
            one_s, two_s = (hosting.throughput(seconds / 2, 1, 2, engine, vcpus) for vcpus in (1, 2))
            self._add("hosting_two_vcpus", name, two_s / one_s)

        def two_natively() -> None:
            one_s, two_s = (hosting.native_throughput(seconds / 2, count) for count in (1, 2))
            for row in ("hosting_two", "hosting_two_vcpus"):
                self._add(row, NATIVE, two_s / one_s)

        for policy in hosting.POLICIES:
            wanted(f"share_{policy}", partial(share, policy))
            wanted(f"wake_{policy}", partial(wake, policy))
        wanted("cap", cap)
        wanted("switch", switch)
        wanted("work", work)
        if "hosting_two" in self._rows:
            self._ours("hosting: two", two)
        if "hosting_two_vcpus" in self._rows and "kvm" in self.engines:
            self._attempt("hosting: two vcpus: kvm", lambda: two_vcpus("kvm", OURS["kvm"]))
        if {"hosting_two", "hosting_two_vcpus"} & self._rows.keys():
            self._attempt("hosting: two: native", two_natively)

    def _isolation(self) -> None:
        from paravirt.bench import isolation

        def ours(engine: str, contender: str) -> None:
            row_ms = QUICK_ISOLATION_ROW_MS if self.quick else ISOLATION_ROW_MS
            for name, loss in isolation.measure(row_ms, engine).items():
                self._add(f"isolation_{name}", contender, loss.cost)
                self._add(f"isolation_{name}_spread", contender, loss.spread)

        self._ours("isolation", ours)

    def _host_kernel(self) -> None:
        from paravirt.bench import hostkernel

        def fill() -> None:
            for count, kib in hostkernel.memory(marks):
                self._add(f"host_kernel_{count}", KVM, kib)

        marks = tuple(count for count in hostkernel.MACHINES if f"host_kernel_{count}" in self._rows)
        if "kvm" in self.engines:
            self._attempt("host_kernel", fill)

    def _crowd(self) -> None:
        """Once only: the machine fills up slowly."""
        from paravirt.bench import crowd

        def fill(kind: str, contender: str, measured: Iterable[crowd.Crowd]) -> None:
            for found in measured:
                name = f"crowd_{kind}_{found.domains}"
                self._add_all(contender, {f"{name}_{what}": value for what, value in found.figures().items()})

        if any(row.samples for row in self.results.rows if row.section == "crowd"):
            return
        effort = crowd.QUICK if self.quick else crowd.FULL
        if small := self._marks("small"):
            self._ours("crowd: small", lambda engine, name: fill("small", name, crowd.small(small, effort, engine)))
        if linux := self._marks("linux"):
            self._ours(
                "crowd: linux",
                lambda engine, name: fill("linux", name, crowd.linux(linux, effort, self.say, engine)),
            )

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
@click.option("--rows", "pattern", metavar="PATTERNS", default="*",
              help="Only rows like these, as in 'trap_*,null_call'.")  # fmt: skip
@click.option("--engine", type=click.Choice(list(ENGINES)), default="unicorn", show_default=True,
              help="CPU engine of our own guests.")  # fmt: skip
@click.option("--peers", is_flag=True, help="Compare with real Xen and others, installed when they are missing.")
@click.option("--json", "file", metavar="FILE", type=click.Path(path_type=Path), help="Write all figures there.")
@click.option("--plots", metavar="FOLDER", type=click.Path(path_type=Path, file_okay=False),
              help="Draw rows about many domains there, as PNG and SVG (needs matplotlib).")  # fmt: skip
def bench(
    quick: bool, runs: int | None, pattern: str, engine: str, peers: bool, file: Path | None, plots: Path | None
) -> int:
    """Measure boots, traps and system calls.

    Targets that are missed are shown as such; the exit status is 0 all the same.
    """
    errors = Console(stderr=True, highlight=False)
    if file is not None and (file.is_dir() or not os.access(file if file.exists() else file.parent, os.W_OK)):
        raise UserError(f"The file {file} cannot be written.")

    def say(text: str) -> None:
        errors.print(text, markup=False)

    contenders = available(report=say) if peers else ()
    suite = Suite(runs or (QUICK_RUNS if quick else DEFAULT_RUNS), quick, pattern, contenders, say, engine)
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
