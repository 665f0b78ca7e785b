"""What the toolstack writes for a new domain (docs/misc/xenstore-paths.pandoc in Xen's tree)."""

from __future__ import annotations

import uuid

from paravirt.domain0.store.server import Store
from paravirt.domain0.store.tree import Permission


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
) -> None:
    """Write the domain's subtree.  ``memory`` is in MiB.

    Most of it the guest may read; ``data``, ``drivers``, ``feature``, ``attr``, ``error``, ``device`` and the
    keys under ``control`` that it answers in are its own.
    """
    home = f"/local/domain/{domid}"
    vm = f"/vm/{uuid.uuid5(uuid.NAMESPACE_OID, f'paravirt-{domid}-{name}')}"
    readable = (Permission("n", 0), Permission("r", domid))
    own = (Permission("n", domid),)
    store.set(vm, "", *readable)
    store.set(vm + "/name", name, *readable)
    store.set(vm + "/uuid", vm.removeprefix("/vm/"), *readable)
    store.set(home, "", *readable)
    fixed = {
        "vm": vm,
        "name": name,
        "domid": str(domid),
        "memory": "",
        "memory/static-max": str(memory * 1024),
        "memory/target": str(memory * 1024),
        "memory/videoram": "0",
        "cpu": "",
        "store": "",
        "store/port": str(store_port),
        "store/ring-ref": str(store_mfn),
        "console": "",
        "console/backend": f"/local/domain/0/backend/console/{domid}/0",
        "console/backend-id": "0",
        "console/type": "xenconsoled",
        "console/output": "pty",
        "console/limit": "1048576",
        "console/ring-ref": str(console_mfn),
        "console/port": str(console_port),
        "control": "",
        "control/platform-feature-multiprocessor-suspend": "1",
        "control/platform-feature-xs_reset_watches": "1",
        "device": "",
    }
    for vcpu in range(vcpus):
        fixed[f"cpu/{vcpu}"] = ""
        fixed[f"cpu/{vcpu}/availability"] = "online"
    for path, value in fixed.items():
        store.set(f"{home}/{path}", value, *readable)
    for path in (
        "data",
        "drivers",
        "feature",
        "attr",
        "error",
        "device/suspend/event-channel",
        "control/shutdown",
        "control/feature-poweroff",
        "control/feature-reboot",
        "control/feature-suspend",
        "control/sysrq",
    ):
        store.set(f"{home}/{path}", "", *own)
