"""The store against a model: a dictionary of values by path.

The model knows nothing of transactions. What it demands of one is that it could have happened all at once, at its
end: if it ends well, doing its requests then must give the answers that it got; if it fails, there must have been
something to fail about.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from .clients import NAMES, TYPES, OurStore, give_homes

HOME = "/local/domain/5/data"
GUEST = 5
OTHER = 7

names = st.sampled_from(["", "/a", "/b", "/a/b", "/a/c", "/a/b/c", "/b/a"])
values = st.sampled_from([b"", b"1", b"x\0y", b"z" * 100])
kinds = st.sampled_from(["READ", "WRITE", "WRITE", "RM", "MKDIR", "DIRECTORY"])
Reply = tuple[str, bytes]


def parent(path: str) -> str:
    return path.rpartition("/")[0]


@dataclass
class Model:
    """A guest's directory: values in the order of their nodes' creation."""

    state: dict[str, bytes] = field(default_factory=lambda: {HOME: b""})

    def expect(self, kind: str, path: str, value: bytes) -> Reply:
        """Do a request: the reply."""
        if path not in self.state:
            return self._expect_without(kind, path, value)
        if kind == "READ":
            return kind, self.state[path]
        if kind == "DIRECTORY":
            children = [one.rpartition("/")[2] for one in self.state if parent(one) == path]
            return kind, "".join(f"{name}\0" for name in children).encode()
        if kind == "RM":
            self.state = {one: v for one, v in self.state.items() if not f"{one}/".startswith(f"{path}/")}
        if kind == "WRITE":
            self.state[path] = value
        return kind, b"OK\0"

    def _expect_without(self, kind: str, path: str, value: bytes) -> Reply:
        """The same where there is no such node."""
        if kind in ("READ", "DIRECTORY"):
            return "ERROR", b"ENOENT\0"
        if HOME not in self.state:
            return "ERROR", b"EACCES\0"
        if kind == "RM":
            return (kind, b"OK\0") if parent(path) in self.state else ("ERROR", b"ENOENT\0")
        above = path
        missing = [path]
        while (above := parent(above)) not in self.state:
            missing.append(above)
        for one in reversed(missing):
            self.state[one] = b""
        if kind == "WRITE":
            self.state[path] = value
        return kind, b"OK\0"


@dataclass
class Running:
    """A transaction: what it asked and was told, and how many changes there had been when it began."""

    began: int
    log: list[tuple[str, str, bytes, Reply]] = field(default_factory=list)


class StoreMachine(RuleBasedStateMachine):
    """One guest in any number of transactions and in none; another one that watches and is told nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = OurStore()
        self.asked.introduce(GUEST)
        self.asked.introduce(OTHER)
        give_homes(self.asked, GUEST)
        self.asked.ask(OTHER, TYPES["WATCH"], f"{HOME}\0t\0".encode())
        self.model = Model()
        self.changes = 0
        self.running: dict[int, Running] = {}

    def ask(self, kind: str, payload: bytes, transaction: int = 0) -> Reply:
        reply = self.asked.ask(GUEST, TYPES[kind], payload, transaction).reply
        assert reply is not None
        return NAMES[reply.type], reply.payload

    def ask_node(self, kind: str, name: str, value: bytes, transaction: int = 0) -> Reply:
        payload = f"{HOME}{name}\0".encode() + (value if kind == "WRITE" else b"")
        return self.ask(kind, payload, transaction)

    @rule(kind=kinds, name=names, value=values)
    def do(self, kind: str, name: str, value: bytes) -> None:
        reply = self.ask_node(kind, name, value)
        assert reply == self.model.expect(kind, HOME + name, value)
        self.changes += kind not in ("READ", "DIRECTORY")

    @precondition(lambda self: len(self.running) < 6)
    @rule()
    def start(self) -> None:
        kind, payload = self.ask("TRANSACTION_START", b"\0")
        assert kind == "TRANSACTION_START"
        self.running[int(payload[:-1])] = Running(self.changes)

    @precondition(lambda self: self.running)
    @rule(data=st.data(), kind=kinds, name=names, value=values)
    def do_in_transaction(self, data: st.DataObject, kind: str, name: str, value: bytes) -> None:
        number = data.draw(st.sampled_from(sorted(self.running)))
        reply = self.ask_node(kind, name, value, number)
        self.running[number].log.append((kind, HOME + name, value, reply))

    @precondition(lambda self: self.running)
    @rule(data=st.data(), commit=st.booleans())
    def end(self, data: st.DataObject, commit: bool) -> None:
        number = data.draw(st.sampled_from(sorted(self.running)))
        transaction = self.running.pop(number)
        reply = self.ask("TRANSACTION_END", b"T\0" if commit else b"F\0", number)
        if not commit:
            assert reply == ("TRANSACTION_END", b"OK\0")
        elif reply == ("TRANSACTION_END", b"OK\0"):
            for kind, path, value, told in transaction.log:
                assert told == self.model.expect(kind, path, value)
            self.changes += 1
        else:
            assert reply == ("ERROR", b"EAGAIN\0")
            assert self.changes > transaction.began
            assert transaction.log

    @precondition(lambda self: HOME not in self.model.state)
    @rule()
    def restore(self) -> None:
        """A guest that removed its directory cannot go on without help."""
        give_homes(self.asked, GUEST)
        self.model.state[HOME] = b""
        self.changes += 1

    @invariant()
    def the_store_is_as_the_model_says(self) -> None:
        found = {}
        waiting = [HOME] if self.asked.store.get(HOME) is not None else []
        while waiting:
            path = waiting.pop()
            value = self.asked.store.get(path)
            assert value is not None
            found[path] = value
            waiting += [f"{path}/{name}" for name in self.asked.store.directory(path)]
        assert found == self.model.state

    @invariant()
    def the_books_are_right(self) -> None:
        """Every node is listed by its parent, once, and what is counted for the guest is what it has."""
        tree = self.asked.store.tree
        mine, size, total = 0, 0, 0
        waiting = [b"/"]
        while waiting:
            path = waiting.pop()
            node = tree.get(path)
            assert node is not None
            total += 1
            if node.owner == GUEST:
                mine += 1
                size += node.size + len(path)
            assert len(set(node.names())) == len(node.names())
            waiting += [path.rstrip(b"/") + b"/" + name for name in node.names()]
        assert total == len(tree)
        assert (tree.nodes_of(GUEST), tree.memory_of(GUEST)) == (mine, size)
        assert len(tree.owned_by(GUEST)) == mine

    @invariant()
    def a_guest_is_not_told_of_what_it_may_not_read(self) -> None:
        # It may read /local/domain/5/data's list of nothing at all, and was told once when it set the watch.
        assert self.asked.events(OTHER) == []


StoreMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestStore = StoreMachine.TestCase
