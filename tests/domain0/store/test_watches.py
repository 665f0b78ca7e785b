"""Watches: who is told of what, against a slow model."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from paravirt.domain0.store import Permission, Store
from paravirt.domain0.store.watches import Watch, Watches

parts = st.sampled_from(["a", "b", "ab"])
paths = st.lists(parts, max_size=4).map(lambda names: ("/" + "/".join(names)).encode())


class Nobody:
    domid = 0
    target: int | None = None

    def tell(self, watch: Watch, path: bytes) -> None:
        raise AssertionError


@given(st.lists(paths), paths, st.booleans(), st.lists(st.integers(0, 20)))
def test_watches_are_found_in_the_order_in_which_they_were_set(
    set_at: list[bytes], changed: bytes, exact: bool, taken_back: list[int]
) -> None:
    watches = Watches()
    all_watches = [watches.add(Nobody(), path, b"%d" % i) for i, path in enumerate(set_at)]
    for i in set(taken_back):
        if i < len(set_at):
            watches.remove(all_watches[i])
    kept = [watch for i, watch in enumerate(all_watches) if i not in taken_back]

    def matches(watch: Watch) -> bool:
        if exact:
            return watch.path == changed
        return watch.path == b"/" or changed == watch.path or changed.startswith(watch.path + b"/")

    assert watches.find(changed, exact) == [watch for watch in kept if matches(watch)]
    assert len(watches) == len(kept)


def test_a_service_of_domain_0_is_called_when_the_change_is_complete() -> None:
    store = Store()
    told: list[tuple[str, bytes | None]] = []
    stop = store.watch("/backend", lambda path: told.append((path, store.get("/backend/state"))))
    assert told == [("/backend", None)]
    store.set("/backend/state", "1", Permission("n", 0))
    assert told[1:] == [("/backend/state", b"1")]
    guest = store.connect(3)
    store.set("/backend/state", "2", Permission("b", 0))
    told.clear()
    guest.receive(b"\x0b\0\0\0" + bytes(8) + b"\x10\0\0\0" + b"/backend/state\0003")
    assert told == [("/backend/state", b"3")]
    stop()
    store.set("/backend/state", "4")
    assert len(told) == 1


def test_a_service_may_change_the_store_when_it_is_called() -> None:
    store = Store()
    order: list[str] = []

    def answer(path: str) -> None:
        order.append(path)
        if store.get("/front/state") == b"1" and store.get("/back/state") is None:
            store.set("/back/state", "2")
            order.append("answered")

    store.watch("/front", answer)
    store.watch("/back", order.append)
    order.clear()
    store.set("/front/state", "1")
    assert order == ["/front/state", "answered", "/back/state"]


def test_what_a_service_sets_and_removes_is_told_to_guests() -> None:
    store = Store()
    guest = store.connect(3)
    store.set("/x", "", Permission("r", 0))
    guest.receive(b"\x04\0\0\0" + bytes(8) + b"\x05\0\0\0" + b"/x\0t\0")
    guest.take_output(1000)
    store.set("/x/y", "1")
    assert b"/x/y\0t\0" in guest.take_output(1000)
    assert store.directory("/x") == ["y"]
    assert store.remove("/x/y")
    assert b"/x/y\0t\0" in guest.take_output(1000)
    assert not store.remove("/x/y")
    assert store.directory("/x") == []
    assert store.directory("/none") == []
    assert store.permissions("/none") is None
