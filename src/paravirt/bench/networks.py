"""A guest's network: the same program in the same guest, on our backend and router and on QEMU's virtio-net.

The guest reaches a server on the host through its router's address; on our machine also one in another guest.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from paravirt.bench.guestprogram import (
    DONE_LINE,
    END_LINE,
    KERNEL_OPTIONS,
    NETWORK_PORT,
    SERVES_LINE,
    SHELL_LINE,
    Report,
    parse,
    program,
)
from paravirt.domain0.net.options import NetworkOptions
from paravirt.domain0.toolstack import Domain, Machine
from paravirt.domain0.xlcfg.vifs import vif_spec
from paravirt.errors import HypervisorBug, UserError

MEMORY_MIB = 256
TIMEOUT_S = 300


@dataclass(frozen=True)
class NetworkReport:
    """What the program measured; and what Domain 0's thread took of the host's CPU, in us for each MB."""

    report: Report
    service_us_per_mb: float


@contextmanager
def host_server() -> Iterator[None]:
    """A server on the host's loopback, which guests reach by their router's address.

    Raises:
        UserError: its port is taken; or as for :func:`paravirt.bench.guestprogram.program`.
    """
    command = [str(program()), "--serve", "127.0.0.1", str(NETWORK_PORT)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        try:
            if SERVES_LINE not in process.stdout.readline():
                why = process.stderr.readline().strip()
                raise UserError(f"The host's port {NETWORK_PORT} cannot be listened on: {why}")
            yield
        finally:
            process.kill()  # those that it has made for connections go with it


def measure(kernel: Path, ramdisk: Path, engine: str = "unicorn") -> NetworkReport:
    """Boot two Linux guests, and have the ways from one to the other, and to the host, measured."""
    options = NetworkOptions(host_loopback=True)
    with host_server(), Machine(memory=2 * MEMORY_MIB + 64, network=options, engine=engine) as machine:
        server = _start(machine, kernel, ramdisk, "server", "pvbench.serve")
        server.console.expect(SERVES_LINE, TIMEOUT_S)
        (interface,) = machine.call(machine.network.status)
        client = _start(machine, kernel, ramdisk, "client", f"pvbench.peer={interface['addresses'][0]}")
        client.console.expect("PVBENCH BEGINS", TIMEOUT_S)
        before = machine.service_time_ns()
        text = client.console.expect(END_LINE, TIMEOUT_S)
        taken = machine.service_time_ns() - before
        counts = [one for one in machine.call(machine.network.status) if one["name"] != interface["name"]]
        if len(counts) != 1:
            raise HypervisorBug("the guest that measures its network has no interface any more")
        moved = (counts[0]["sent_bytes"] + counts[0]["received_bytes"]) / 1e6
        return NetworkReport(parse(text), taken / 1000 / moved)


def isolation(kernel: Path, ramdisk: Path, engine: str = "unicorn") -> dict[str, float]:
    """What two guests who talk to each other still have beside a third that floods the router with small packets, in
    percent of what they have beside one that only computes: their throughput, and how long a byte takes there and
    back.

    Raises:
        HypervisorBug: they do not reach each other.
    """
    with Machine(memory=3 * MEMORY_MIB + 64, engine=engine) as machine:
        server = _start(machine, kernel, ramdisk, "server", "pvbench.serve")
        server.console.expect(SERVES_LINE, TIMEOUT_S)
        (interface,) = machine.call(machine.network.status)
        client, third = (_start(machine, kernel, ramdisk, name, "pvbench.shell") for name in ("client", "third"))
        for shell in (client, third):
            shell.console.expect(SHELL_LINE, TIMEOUT_S)

        def rows() -> dict[str, float]:
            where = f"--server {interface['addresses'][0]} --port {NETWORK_PORT}"
            client.console.send(f"/bin/pvbench {where} --only send,echo\n")
            found = parse(client.console.expect(DONE_LINE, TIMEOUT_S)).values
            if len(found) < 2 or not all(found.values()):
                raise HypervisorBug(f"two guests could not talk to each other: they measured {found}")
            return found

        third.console.send("while :; do :; done &\n")
        calm = rows()
        third.console.send("kill $!; /bin/pvbench --flood $(cat /etc/router) &\n")
        flooded = rows()
        return {f"net_flooded_{name}": 100 * flooded[name] / before for name, before in calm.items()}


def _start(machine: Machine, kernel: Path, ramdisk: Path, name: str, words: str) -> Domain:
    cmdline = f"console=hvc0 {KERNEL_OPTIONS} {words}"
    return machine.create(kernel, ramdisk, cmdline, memory=MEMORY_MIB, name=name, devices=[vif_spec()])
