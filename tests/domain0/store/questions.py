"""Random questions to two stores at once."""

from __future__ import annotations

import random

from paravirt.abi.io import xs_wire

from .clients import NAMES, TYPES, Asked, give_homes

GUESTS = (5, 7)
LENGTH = 400
_NAMES = ("", "a", "b", "a/b", "a/c", "b/a", "a/b/c", "a/b/c/a", "d")
_KINDS = (
    *("READ",) * 3,
    *("WRITE",) * 4,
    *("RM",) * 2,
    *("SET_PERMS",) * 2,
    *("WATCH",) * 2,
    *("TRANSACTION_END",) * 2,
    *("MKDIR", "DIRECTORY", "GET_PERMS", "UNWATCH", "TRANSACTION_START"),
)
_DOOMED = (b"EIO\0", b"EINVAL\0")


class _Asker:
    """Makes questions up."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.transactions: dict[int, list[int]] = {domid: [] for domid in (0, *GUESTS)}

    def question(self) -> tuple[int, str, bytes, int]:
        """Who asks, what, and in which transaction."""
        pick = self.random.choice
        domid = pick((0, 5, 5, 5, 7))
        kind = "RESET_WATCHES" if self.random.random() < 0.005 else pick(_KINDS)
        running = self.transactions[domid]
        transaction = pick([*running, 0]) if running and self.random.random() < 0.7 else 0
        if kind == "TRANSACTION_START" or (kind == "TRANSACTION_END" and not transaction):
            kind, transaction = ("TRANSACTION_START", 0) if len(running) < 4 else ("READ", 0)
        return domid, kind, self._payload(domid, kind).encode(), transaction

    def _payload(self, domid: int, kind: str) -> str:
        pick = self.random.choice
        path = self._path(domid)
        if kind == "WRITE":
            return f"{path}\0" + pick(("", "1", "xx", "y" * 1000))
        if kind == "SET_PERMS":
            owner = f"{pick('nrwb')}{pick((domid, domid, domid, 0, *GUESTS))}\0"
            return f"{path}\0{owner}" + pick(("", "r7\0", "b5\0", "w7\0r5\0", "n7\0", "r5\0r7\0"))
        if kind in ("WATCH", "UNWATCH"):
            return f"{pick((path, path, path, '@releaseDomain', '/'))}\0{pick('tu')}\0"
        if kind == "TRANSACTION_END":
            return pick("TTTF") + "\0"
        if kind in ("TRANSACTION_START", "RESET_WATCHES"):
            return "\0"
        return f"{path}\0"

    def _path(self, domid: int) -> str:
        pick = self.random.choice
        name = pick(_NAMES)
        if domid and self.random.random() < 0.7:
            return f"data/{name}".rstrip("/")
        base = f"/local/domain/{pick((5, 5, 7))}/data"
        if self.random.random() < 0.1:
            base = pick(("/local/domain/5", "", "/local", "/x"))
        return f"{base}/{name}".rstrip("/") or "/"


def compare(seed: int, one: Asked, other: Asked) -> list[str]:
    """Ask both the same: an empty list, or what led to the first difference."""
    asker = _Asker(seed)
    history: list[str] = []
    for asked in (one, other):
        for domid in GUESTS:
            asked.introduce(domid)
        give_homes(asked, *GUESTS)
    for step in range(LENGTH):
        domid, kind, payload, transaction = asker.question()
        answers = [_ask(asked, domid, kind, payload, transaction) for asked in (one, other)]
        history.append(f"{domid}/{transaction}> {kind} {payload!r}: {answers[0][0]}")
        reply = answers[1][0]
        doomed = any(answer[0][1] in _DOOMED for answer in answers)
        if kind == "RM" and transaction and doomed and payload != b"/\0":
            # The transaction saw a node and its parent at different times. What it is told is a matter of taste.
            answers = [_ask(asked, domid, "TRANSACTION_END", b"T\0", transaction) for asked in (one, other)]
            assert answers[0][0] == answers[1][0] == ("ERROR", b"EAGAIN\0"), history
            asker.transactions[domid].remove(transaction)
        elif kind == "TRANSACTION_START" and reply[0] == "TRANSACTION_START":
            asker.transactions[domid].append(int(reply[1][:-1]))
        elif kind == "TRANSACTION_END":
            asker.transactions[domid].remove(transaction)
        elif kind == "RESET_WATCHES" and reply[0] == kind:
            asker.transactions[domid].clear()
        if answers[0] != answers[1]:
            return [*history, f"one: {answers[0]}", f"other: {answers[1]}"]
        if step % 30 == 29:
            for asked in (one, other):
                _restore_homes(asked)
    return []


def _ask(
    asked: Asked, domid: int, kind: str, payload: bytes, transaction: int
) -> tuple[tuple[str, bytes], dict[int, list[bytes]]]:
    answer = asked.ask(domid, TYPES[kind], payload, transaction)
    assert answer.reply is not None
    events = {one: asked.events(one) for one in asked.domids}
    events[domid] = [*answer.before, *answer.after, *events[domid]]
    return (NAMES[answer.reply.type], answer.reply.payload), events


def _restore_homes(asked: Asked) -> None:
    """Guests that have nothing left ask nothing interesting."""
    for domid in GUESTS:
        answer = asked.ask(0, xs_wire.XS_READ, f"/local/domain/{domid}/data\0".encode())
        assert answer.reply is not None
        if answer.reply.type == xs_wire.XS_ERROR:
            give_homes(asked, domid)
