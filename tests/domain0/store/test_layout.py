"""What the toolstack writes for a domain."""

from __future__ import annotations

import uuid

from paravirt.abi.io import xs_wire
from paravirt.domain0.store import Store
from paravirt.domain0.store.layout import announce

from .clients import OurStore

READABLE = "n0 r3"
OWN = "n3"
NOBODY = "n0"
VM = "/vm/6e6a0d0c-5f3c-5b56-8d6f-6f9c2e0d1a01"

EXPECTED = {
    "vm": (VM, READABLE),
    "name": ("guest", READABLE),
    "cpu": ("", READABLE),
    "cpu/0": ("", READABLE),
    "cpu/0/availability": ("online", READABLE),
    "cpu/1": ("", READABLE),
    "cpu/1/availability": ("offline", READABLE),
    "memory": ("", READABLE),
    "memory/static-max": ("65536", READABLE),
    "memory/target": ("65536", READABLE),
    "memory/videoram": ("0", READABLE),
    "device": ("", READABLE),
    "device/suspend": ("", READABLE),
    "device/suspend/event-channel": ("", OWN),
    "control": ("", READABLE),
    "control/shutdown": ("", OWN),
    "control/feature-poweroff": ("", OWN),
    "control/feature-reboot": ("", OWN),
    "control/feature-suspend": ("", OWN),
    "control/sysrq": ("", OWN),
    "control/platform-feature-multiprocessor-suspend": ("1", READABLE),
    "control/platform-feature-xs_reset_watches": ("1", READABLE),
    "data": ("", OWN),
    "drivers": ("", OWN),
    "feature": ("", OWN),
    "attr": ("", OWN),
    "error": ("", OWN),
    "domid": ("3", READABLE),
    "store": ("", READABLE),
    "store/port": ("2", READABLE),
    "store/ring-ref": ("1000", READABLE),
    "console": ("", READABLE),
    "console/backend": ("/local/domain/0/backend/console/3/0", READABLE),
    "console/backend-id": ("0", "n3 r0"),
    "console/limit": ("1048576", READABLE),
    "console/type": ("xenconsoled", READABLE),
    "console/output": ("pty", READABLE),
    "console/tty": ("/dev/pts/7", READABLE),
    "console/port": ("1", READABLE),
    "console/ring-ref": ("999", READABLE),
}


def announce_guest(store: Store) -> None:
    announce(
        store,
        3,
        "guest",
        memory=64,
        vcpus=2,
        store_mfn=1000,
        store_port=2,
        console_mfn=999,
        console_port=1,
        uuid=uuid.UUID(VM.removeprefix("/vm/")),
        online=1,
        tty="/dev/pts/7",
    )


def listing(store: Store, top: str) -> dict[str, tuple[str, str]]:
    """Every node below ``top``: its value and permissions."""
    found = {}
    waiting = [f"{top}/{name}" for name in store.directory(top)]
    while waiting:
        path = waiting.pop()
        value, permissions = store.get(path), store.permissions(path)
        assert value is not None
        assert permissions is not None
        text = " ".join(permission.encode().decode() for permission in permissions)
        found[path.removeprefix(top + "/")] = (value.decode(), text)
        waiting += [f"{path}/{name}" for name in store.directory(path)]
    return found


def test_the_guests_home() -> None:
    store = Store()
    announce_guest(store)
    assert listing(store, "/local/domain/3") == EXPECTED


def test_what_the_toolstack_and_the_backend_find() -> None:
    store = Store()
    announce_guest(store)
    back = {
        "frontend": "/local/domain/3/console",
        "frontend-id": "3",
        "online": "1",
        "state": "1",
        "protocol": "vt100",
    }
    assert listing(store, "/local/domain/0/backend/console/3/0") == {k: (v, READABLE) for k, v in back.items()}
    device = listing(store, "/libxl/3/device/console/0")
    assert {key: value for key, (value, _) in device.items()} == back | {
        "backend": "/local/domain/0/backend/console/3/0"
    }
    assert {permissions for _, permissions in listing(store, "/libxl/3").values()} == {NOBODY}
    assert listing(store, VM) == {"uuid": (VM.removeprefix("/vm/"), READABLE), "name": ("guest", READABLE)}
    assert store.get("/local/domain/0/name") == b"Domain-0"


def test_a_guest_reads_its_home_and_writes_what_is_its_own() -> None:
    asked = OurStore()
    announce_guest(asked.store)
    asked.introduce(3)

    def tell(kind: int, payload: bytes) -> bytes:
        reply = asked.ask(3, kind, payload).reply
        assert reply is not None
        return reply.payload

    assert tell(xs_wire.XS_READ, b"memory/target\0") == b"65536"
    assert tell(xs_wire.XS_WRITE, b"memory/target\0001") == b"EACCES\0"
    assert tell(xs_wire.XS_WRITE, b"control/feature-poweroff\0001") == b"OK\0"
    assert tell(xs_wire.XS_WRITE, b"control/shutdown\0") == b"OK\0"
    assert tell(xs_wire.XS_WRITE, b"data/anything\0x") == b"OK\0"
    assert tell(xs_wire.XS_WRITE, b"console/tty\0x") == b"EACCES\0"
    assert tell(xs_wire.XS_READ, b"/libxl/3/type\0") == b"EACCES\0"
    assert tell(xs_wire.XS_READ, VM.encode() + b"/name\0") == b"guest"


def test_nothing_is_left_of_a_domain_that_is_gone() -> None:
    asked = OurStore()
    announce_guest(asked.store)
    asked.introduce(3)
    asked.release(3)
    announce_guest(asked.store)
    asked.introduce(3)
    before = len(asked.store.tree)
    asked.ask(3, xs_wire.XS_WRITE, b"data/a/b/c\0x")
    asked.release(3)
    assert len(asked.store.tree) < before
    for path in ("/local/domain", "/vm", "/libxl", "/local/domain/0/backend/console"):
        assert asked.store.directory(path) == (["0"] if path == "/local/domain" else [])
    announce_guest(asked.store)
    assert len(asked.store.tree) == before


def test_the_same_calls_write_the_same() -> None:
    stores = [Store(), Store()]
    for store in stores:
        announce(store, 9, "x", 32, 1, 1, 2, 3, 4)
    assert listing(stores[0], "/local/domain/9") == listing(stores[1], "/local/domain/9")
