"""``paravirtd``: the program.

Started by hand, by systemd (``--foreground``), or by the first ``xl`` that needs it. There is one for each user: it
holds a lock as long as it lives, and a second one says so and ends.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from paravirt.domain0.daemon.launch import connect_to, launch, wait_for_end
from paravirt.domain0.daemon.paths import Places, places, prepare
from paravirt.domain0.daemon.protocol import VERSION
from paravirt.domain0.waiting import wait_in_turns
from paravirt.errors import UserError
from paravirt.machine.choice import DEFAULT_ENGINE, ENGINE_VARIABLE, ENGINES

MEMORY: Final = "PARAVIRT_MEMORY"
"""The environment variable for the machine's memory in MiB, for daemons that xl starts."""

SCHEDULER: Final = "PARAVIRT_SCHEDULER"
CONSOLE_LOG: Final = "PARAVIRT_CONSOLE_LOG"
"""Those for ``--scheduler`` and ``--console-log``."""

AUTOBALLOON: Final = "PARAVIRT_AUTOBALLOON"
"""That for ``--autoballoon``."""

NETWORK: Final = "PARAVIRT_NETWORK"
"""That for ``--network``."""

PCPUS: Final = "PARAVIRT_PCPUS"
"""That for ``--pcpus``."""

PATIENCE: Final = 10.0
"""Seconds that guests have to power off when the daemon ends."""

MIB: Final = 1 << 20
READY: Final = b"ready\n"


def default_memory() -> int:
    """MiB for a machine: three quarters of the host's; frames that no guest touches cost nothing."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // MIB * 3 // 4


def _number(option: int | None, name: str) -> int | None:
    """An option of the command line, else what the environment says; None: neither says anything."""
    text = os.environ.get(name)
    if option is not None or not text:
        return option
    if not (text.isascii() and text.isdigit()):
        raise UserError(f"{name} is {text!r}, and not a number.")
    return int(text)


def _switch(option: str | None, name: str) -> bool:
    """An option that is "on" or "off", else what the environment says; neither says anything: off."""
    text = option or os.environ.get(name) or "off"
    if text not in ("on", "off"):
        raise UserError(f"{name} is {text!r}, and neither on nor off.")
    return text == "on"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="paravirtd", description="Own a machine whose domains xl manages. There is one for each user."
    )
    made.add_argument("--memory", type=int, metavar="MIB", help=f"memory of the machine (or ${MEMORY}; else 3/4)")
    made.add_argument("--pcpus", type=int, metavar="N",
                      help=f"physical CPUs of the machine (or ${PCPUS}; else the host's)")  # fmt: skip
    engines = f"{', '.join(ENGINES[:-1])} or {ENGINES[-1]}"
    made.add_argument("--engine", metavar="NAME", help=f"{engines} (or ${ENGINE_VARIABLE}; else {DEFAULT_ENGINE})")
    made.add_argument("--scheduler", metavar="NAME", help=f"credit, sedf, bvt or null (or ${SCHEDULER}; else credit)")
    made.add_argument("--autoballoon", choices=("on", "off"),
                      help=f"take memory for new domains from idle guests (or ${AUTOBALLOON}; else off)")  # fmt: skip
    made.add_argument("--network", action="append", metavar="SPEC",
                      help="what the network is like: subnet=…,script=…,outside=no,host-loopback=yes,forward=…,rule=…,"
                      f"tap=… (or ${NETWORK})")  # fmt: skip
    made.add_argument("--console-log", metavar="FOLDER",
                      help=f"keep consoles in files guest-NAME.log there (or ${CONSOLE_LOG})")  # fmt: skip
    made.add_argument("--patience", type=float, default=PATIENCE, metavar="SECONDS",
                      help="how long guests may take to power off at the end (default: %(default)s)")  # fmt: skip
    made.add_argument("--foreground", action="store_true", help="stay in the foreground, and log to standard error too")
    made.add_argument("--stop", action="store_true", help="end the daemon that runs, and wait for its end")
    made.add_argument("--ready-fd", type=int, help=argparse.SUPPRESS)
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``paravirtd``; the exit status: 0, or 1 when it cannot run, after a sentence that says why."""
    options = parser().parse_args(arguments)
    try:
        if options.stop:
            return stop()
        if not options.foreground and options.ready_fd is None:
            return start_in_background(list(sys.argv[1:] if arguments is None else arguments))
        if options.ready_fd is not None and os.fork() != 0:
            os._exit(0)  # who started us does not want to be our parent
        with _ready(options.ready_fd) as ready:
            return serve(options, ready)
    except UserError as error:
        print(f"paravirtd: {error}", file=sys.stderr)
        return 1


def stop() -> int:
    """End the daemon that runs."""
    channel = connect_to(places())
    if channel is None:
        raise UserError("No daemon runs.")
    channel.send({"version": VERSION, "operation": "stop"})
    channel.receive()
    wait_for_end(places())
    return 0


def start_in_background(arguments: list[str]) -> int:
    """Start a daemon and return when it serves."""
    prepare(places())
    launch(places(), arguments)
    return 0


class _Ready:
    """Tells whoever started us how that went."""

    def __init__(self, fd: int | None) -> None:
        self._fd = fd

    def tell(self, text: bytes) -> None:
        if self._fd is not None:
            with contextlib.suppress(OSError):
                os.write(self._fd, text)
            os.close(self._fd)
            self._fd = None


@contextlib.contextmanager
def _ready(fd: int | None) -> Iterator[_Ready]:
    ready = _Ready(fd)
    try:
        yield ready
    except UserError as error:
        ready.tell(str(error).encode())
        raise
    finally:
        ready.tell(b"")


def serve(options: argparse.Namespace, ready: _Ready) -> int:
    """Be the daemon until a signal or a client ends it."""
    where = places()
    prepare(where)
    with _only_one(where):
        memory = _number(options.memory, MEMORY)
        if memory is None:
            memory = default_memory()
        ending = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: ending.set())
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        _run(where, memory, options, ready, ending)
    return 0


@contextlib.contextmanager
def _only_one(where: Places) -> Iterator[None]:
    lock = os.open(where.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        raise UserError(f"A daemon runs already (it holds {where.lock}).") from error
    try:
        yield
    finally:
        os.close(lock)


def _run(where: Places, memory: int, options: argparse.Namespace, ready: _Ready, ending: threading.Event) -> None:
    from paravirt.domain0.daemon.domains import Domains
    from paravirt.domain0.daemon.records import ConsoleLog, Journal, Log, LogHandler, Messages
    from paravirt.domain0.daemon.requests import Daemon
    from paravirt.domain0.daemon.server import Server
    from paravirt.domain0.net.options import parse_network
    from paravirt.domain0.toolstack import Machine

    log, messages = Log(where.log, sys.stderr if options.foreground else None), Messages()
    handler = LogHandler(log)
    logging.getLogger().addHandler(handler)
    notices = _notices(Journal(where).left_behind())
    for notice in notices:
        log.write("notice", text=notice)
        messages.add(notice)
    scheduler = options.scheduler or os.environ.get(SCHEDULER) or "credit"
    folder = options.console_log or os.environ.get(CONSOLE_LOG)
    console_log = ConsoleLog(Path(folder).absolute()) if folder else None
    pcpus, autoballoon = _number(options.pcpus, PCPUS), _switch(options.autoballoon, AUTOBALLOON)
    network = ",".join(options.network or [os.environ.get(NETWORK, "")])
    machine = Machine(
        memory=memory,
        pcpus=pcpus,
        scheduler=scheduler,
        engine=options.engine or os.environ.get(ENGINE_VARIABLE) or DEFAULT_ENGINE,
        network=parse_network(network),
        autoballoon=autoballoon,
    )
    with machine, _listening(where) as listener:
        messages.add(f"Xen version 4.17.paravirt, {memory} MiB, {machine.host.nr_pcpus} physical CPU(s)")
        messages.add(machine.engine_notice or f"Guests run on the {machine.engine} engine.")
        machine.serve_store(where.xenstore)
        domains = Domains(machine, where, log, messages, console_log)
        command_line = f"--memory {memory} --pcpus {machine.host.nr_pcpus} --scheduler {scheduler}"
        command_line += f" --engine {machine.engine}"
        command_line += " --autoballoon on" if autoballoon else ""
        command_line += f" --network {network}" if network else ""
        facts = {"started": time.time(), "command_line": command_line}
        server = Server(listener, Daemon(machine, domains, ending.set, facts, notices), log)
        server.start()
        log.write("started", pid=os.getpid(), memory_mib=memory, pcpus=machine.host.nr_pcpus, socket=str(where.socket))
        ready.tell(READY)
        wait_in_turns(ending.wait)
        log.write("ending")
        stopped = domains.close(options.patience)
        log.write("ended", stopped=stopped)
        server.stop()
    logging.getLogger().removeHandler(handler)
    log.close()


def _notices(left: list[dict[str, object]] | None) -> list[str]:
    """What to say about a daemon that was killed."""
    if left is None:
        return []
    if not left:
        return ["paravirtd ended unexpectedly the last time; there was no domain then."]
    names = ", ".join(f"{domain.get('name')} ({domain.get('domid')})" for domain in left)
    return [f"paravirtd ended unexpectedly the last time, and with it these domains: {names}."]


@contextlib.contextmanager
def _listening(where: Places) -> Iterator[socket.socket]:
    """The daemon's socket. We hold the lock, so that one that is there already was left behind."""
    where.socket.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o177)
    try:
        listener.bind(str(where.socket))
    finally:
        os.umask(mask)
    listener.listen(64)
    try:
        yield listener
    finally:
        listener.close()
        where.socket.unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main())
