"""What the toolstack writes for a new domain (docs/misc/xenstore-paths.pandoc in Xen's tree).

The nodes and permissions are those that ``xl create`` of 4.17 leaves for a paravirtual domain (libxl_create.c,
libxl_dom.c, libxl_console.c and libxl_device.c in tools/libs/light).
"""

from __future__ import annotations

import uuid as uuids
from typing import Final

from paravirt.abi.io.xenbus import XenbusStateInitialising
from paravirt.domain0.store.server import Store
from paravirt.domain0.store.tree import Permission

CONSOLE_LIMIT: Final = 1048576
_KIB_PER_MIB: Final = 1024

# Nodes in a domain's home that are its own, beside those that it may only read.
_OWN: Final = (
    "device/suspend/event-channel",
    "control/shutdown",
    "control/feature-poweroff",
    "control/feature-reboot",
    "control/feature-suspend",
    "control/sysrq",
    "data",
    "drivers",
    "feature",
    "attr",
    "error",
)


def announce_host(store: Store) -> None:
    """Write what is there before the first guest: Domain 0's own home (tools/helpers/xen-init-dom0.c)."""
    home = "/local/domain/0"
    store.set(home, "")
    store.set(f"{home}/domid", "0")
    store.set(f"{home}/name", "Domain-0")
    store.set("/local/pool/0/name", "Pool-0")
    store.set("/vm", "")
    store.set("/libxl", "")


def derived_identity(domid: int, name: str) -> uuids.UUID:
    """A unique identifier for a domain, the same for the same number and name."""
    return uuids.uuid5(uuids.NAMESPACE_OID, f"paravirt-{domid}-{name}")


def announce(
    store: Store,
    domid: int,
    name: str,
    memory: int,
    vcpus: int,
    store_mfn: int,
    store_port: int,
    console_mfn: int,
    console_port: int,
    *,
    maximum: int | None = None,
    uuid: uuids.UUID | None = None,
    online: int | None = None,
    tty: str = "",
) -> None:
    """Write a domain's subtrees. They go when the store is told of its release.

    Parameters:
        memory: MiB; ``maximum``, if given, is what it may be given later.
        vcpus: how many virtual CPUs it has; ``online`` of them (all, by default) are to be used from the start.
        store_mfn, console_mfn: the machine frames of its two rings.
        uuid: by default made from the number and the name, so that the same calls write the same.
        tty: the file name of its console's terminal.
    """
    if store.get("/local/domain/0/name") is None:
        announce_host(store)
    home = f"/local/domain/{domid}"
    identity = str(uuid or derived_identity(domid, name))
    vm = f"/vm/{identity}"
    libxl = f"/libxl/{domid}"
    backend = f"/local/domain/0/backend/console/{domid}/0"
    store.belongs(domid, home, vm, libxl, f"/local/domain/0/backend/console/{domid}")
    nobody = (Permission("n", 0),)
    readable = (Permission("n", 0), Permission("r", domid))
    own = (Permission("n", domid),)

    store.set(home, "", *readable)
    store.set(vm, "", *readable)
    store.set(libxl, "", *nobody)
    store.set(f"{libxl}/device", "", *nobody)
    store.set(f"{libxl}/type", "pv")
    store.set(f"{libxl}/dm-version", "qemu_xen")
    store.set(f"{vm}/name", name)
    store.set(f"{vm}/uuid", identity)
    store.set(f"{home}/vm", vm)
    store.set(f"{home}/name", name)
    for directory in ("cpu", "memory", "device", "control"):
        store.set(f"{home}/{directory}", "", *readable)
    for path in _OWN:
        store.set(f"{home}/{path}", "", *own)
    store.set(f"{home}/control/platform-feature-multiprocessor-suspend", "1")
    store.set(f"{home}/control/platform-feature-xs_reset_watches", "1")

    kib = memory * _KIB_PER_MIB
    store.set(f"{home}/memory/static-max", str(max(maximum or 0, memory) * _KIB_PER_MIB))
    store.set(f"{home}/memory/target", str(kib))
    store.set(f"{home}/memory/videoram", "0")
    store.set(f"{home}/domid", str(domid))
    store.set(f"{home}/store/port", str(store_port))
    store.set(f"{home}/store/ring-ref", str(store_mfn))
    for vcpu in range(vcpus):
        available = online is None or vcpu < online
        store.set(f"{home}/cpu/{vcpu}/availability", "online" if available else "offline")

    _announce_console(store, domid, libxl, backend, console_mfn, console_port, tty)


def _announce_console(store: Store, domid: int, libxl: str, backend: str, mfn: int, port: int, tty: str) -> None:
    """The console: to the guest, to its backend, and to the toolstack, which trusts only what it wrote itself."""
    frontend = f"/local/domain/{domid}/console"
    readable = (Permission("n", 0), Permission("r", domid))
    front = {
        "backend": backend,
        "backend-id": "0",
        "limit": str(CONSOLE_LIMIT),
        "type": "xenconsoled",
        "output": "pty",
        "tty": tty,
        "port": str(port),
        "ring-ref": str(mfn),
    }
    back = {
        "frontend": frontend,
        "frontend-id": str(domid),
        "online": "1",
        "state": str(XenbusStateInitialising),
        "protocol": "vt100",
    }
    store.set(frontend, "", *readable)
    for key, value in front.items():
        store.set(f"{frontend}/{key}", value)
    # libxl leaves this one to the guest; nobody reads it.
    store.set(f"{frontend}/backend-id", "0", Permission("n", domid), Permission("r", 0))
    store.set(backend, "", *readable)
    for key, value in back.items():
        store.set(f"{backend}/{key}", value)
    device = f"{libxl}/device/console/0"
    store.set(device, "", Permission("n", 0))
    for key, value in {"frontend": frontend, "backend": backend, **back}.items():
        store.set(f"{device}/{key}", value)
