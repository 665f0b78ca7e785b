"""Many clients at once, each making, pausing, renaming, crashing and destroying domains: nothing is left over."""

from __future__ import annotations

import random
import threading
from pathlib import Path
from typing import Any

from paravirt.domain0.daemon.protocol import INTERNAL
from paravirt.xs.client import XenStore

from .conftest import HELLO, User
from .test_daemon import Talk

CLIENTS = 4
ROUNDS = 60
ENDS = ("poweroff", "crash", "watchdog", "reboot", "jump", "hole", "spin")
NAMES = 12
KINDS = (*["create"] * 6, *["destroy"] * 5, "pause", "unpause", "rename", "list", "shutdown", "vcpus")
ACTIONS = ("destroy", "preserve", "coredump-destroy")


class Client(threading.Thread):
    """One client; what it does follows from its seed. Refusals are fine, defects and silence are not."""

    def __init__(self, user: User, hostile: Path, seed: int) -> None:
        super().__init__()
        self.random = random.Random(seed)
        self.talk = Talk(user)
        self.hostile = hostile
        self.number = seed
        self.failures: list[object] = []
        self.made = 0

    def run(self) -> None:
        try:
            for _ in range(ROUNDS):
                self.round()
        except Exception as error:  # noqa: BLE001 - the test's own thread reports it
            self.failures.append(error)
        finally:
            self.talk.close()

    def ask(self, operation: str, **arguments: Any) -> Any:
        answer = self.talk.ask(operation, **arguments)
        if answer.get("code") == INTERNAL:
            self.failures.append(answer)
        return answer

    def round(self) -> None:
        choice = self.random
        name = f"domain-{choice.randrange(NAMES)}"
        kind = choice.choice(KINDS)
        if kind == "create":
            kernel, cmdline = choice.choice([(HELLO, "")] + [(self.hostile, end) for end in ENDS])
            action = choice.choice(ACTIONS)
            events = ("on_poweroff", "on_reboot", "on_watchdog", "on_crash", "on_soft_reset")
            config = {"name": name, "kernel": str(kernel), "cmdline": cmdline, "memory": 16, "maxmem": 24,
                      "uuid": f"00000000-0000-0000-0000-{choice.randrange(10**12):012d}",
                      "actions": dict.fromkeys(events, action)}  # fmt: skip
            self.made += "result" in self.ask("create", config=config, paused=choice.random() < 0.3)
        elif kind == "rename":
            self.ask("rename", domain=name, name=f"domain-{choice.randrange(NAMES)}")
        else:
            self.ask(kind, domain=name)


def test_nothing_is_left_over(user: User, hostile: Path) -> None:
    user.xl("list")
    pid = user.pids()[0]
    # What comes into being once only: the first domain, the first of each kind of request.
    user.run("create", "-F", user.config("first", hostile, extra="crash"))

    def state() -> tuple[object, ...]:
        with XenStore(user.folder / "xenstored" / "socket") as store:
            nodes = [store.directory(path) for path in ("/local/domain", "/vm", "/libxl")]
        return user.xl("info", "free_memory"), nodes

    def held() -> tuple[int, int]:
        """Descriptors and threads; the last client's may still be among them."""
        return tuple(len(list(Path(f"/proc/{pid}/{what}").iterdir())) for what in ("fd", "task"))  # type: ignore[return-value]

    before, most = state(), held()
    clients = [Client(user, hostile, seed) for seed in range(CLIENTS)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    assert [client.failures for client in clients] == [[]] * CLIENTS
    assert sum(client.made for client in clients) > CLIENTS, "they got something done"
    while user.names():
        for name in user.names():
            user.run("destroy", name)
    user.wait_for(lambda: state() == before)
    user.wait_for(lambda: all(now <= then for now, then in zip(held(), most, strict=True)))
    assert user.pids() == [pid]
    assert (user.folder / "paravirtd.err").read_text(encoding="utf-8") == ""
    assert not [line for line in user.log() if line["event"] in ("defect", "warning")]
