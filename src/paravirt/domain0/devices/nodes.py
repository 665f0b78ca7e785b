"""A device's directories in xenstore: its frontend's, its backend's, and the toolstack's own record.

The nodes and permissions are those that libxl writes (tools/libs/light/libxl_device.c in Xen's tree).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from paravirt.abi.io.xenbus import XenbusStateInitialising
from paravirt.domain0.ring import GuestProtocolError
from paravirt.domain0.store.server import Store
from paravirt.domain0.store.tree import Permission

_LARGEST = 0xFFFFFFFF


@dataclass(frozen=True)
class DeviceNodes:
    """Where a device is found.

    Attributes:
        kind: "vbd", "vif".
        domid: the frontend's domain; the backend's is Domain 0.
        devid: its number.
    """

    kind: str
    domid: int
    devid: int

    @property
    def frontend(self) -> str:
        """The frontend's directory."""
        return f"/local/domain/{self.domid}/device/{self.kind}/{self.devid}"

    @property
    def backend(self) -> str:
        """The backend's directory."""
        return f"/local/domain/0/backend/{self.kind}/{self.domid}/{self.devid}"

    @property
    def record(self) -> str:
        """The toolstack's record of it."""
        return f"/libxl/{self.domid}/device/{self.kind}/{self.devid}"

    @property
    def error(self) -> str:
        """Where the backend leaves its last error."""
        return f"/local/domain/0/error/backend/{self.kind}/{self.domid}/{self.devid}/error"

    def announce(
        self,
        store: Store,
        frontend: Mapping[str, str],
        backend: Mapping[str, str],
        readonly: Mapping[str, str] | None = None,
    ) -> None:
        """Write the directories, with the nodes that are this device's beside those that every device has.

        They go with the domain, or by :meth:`remove`. ``readonly`` are nodes of the frontend's that the guest cannot
        change.
        """
        domid = self.domid
        front = {
            "backend": self.backend,
            "backend-id": "0",
            "state": str(XenbusStateInitialising),
            **frontend,
        }
        back = {
            "frontend": self.frontend,
            "frontend-id": str(domid),
            "online": "1",
            "state": str(XenbusStateInitialising),
            **backend,
        }
        nobody = Permission("n", 0)
        store.belongs(domid, self.backend.rpartition("/")[0], self.error.rpartition("/")[0])
        self._write(store, self.frontend, front, Permission("n", domid), Permission("r", 0))
        for name, value in (readonly or {}).items():
            store.set(f"{self.frontend}/{name}", value, nobody, Permission("r", domid))
        self._write(store, self.backend, back, nobody, Permission("r", domid))
        store.set(self.record, "", nobody)
        for path, other in (("frontend", self.frontend), ("backend", self.backend)):
            store.set(f"{self.record}/{path}", other)
        for name, value in back.items():
            if name != "frontend":
                store.set(f"{self.record}/{name}", value)

    def remove(self, store: Store) -> None:
        """Remove the directories."""
        for path in (self.frontend, self.backend, self.record, self.error.rpartition("/")[0]):
            store.remove(path)

    @staticmethod
    def _write(store: Store, directory: str, nodes: Mapping[str, str], *permissions: Permission) -> None:
        store.set(directory, "", *permissions)
        for name, value in nodes.items():
            store.set(f"{directory}/{name}", value)


class FrontendNodes:
    """What a frontend has published; none of it is to be believed.

    Parameters:
        directory: the frontend's, or one in it.
    """

    def __init__(self, store: Store, directory: str) -> None:
        self._store = store
        self._directory = directory

    def below(self, name: str) -> FrontendNodes:
        """A directory of its directory (``queue-0``)."""
        return FrontendNodes(self._store, f"{self._directory}/{name}")

    def text(self, name: str, default: str | None = None) -> str:
        """A node's value.

        Raises:
            GuestProtocolError: there is no such node, and no default; or it is not text.
        """
        value = self._store.get(f"{self._directory}/{name}")
        if value is None:
            if default is None:
                raise GuestProtocolError(f"there is no {self._directory}/{name}")
            return default
        try:
            return value.rstrip(b"\0").decode("ascii")
        except UnicodeDecodeError as error:
            raise GuestProtocolError(f"{self._directory}/{name} is not text") from error

    def number(self, name: str, default: int | None = None, most: int = _LARGEST) -> int:
        """A node's value as a number from 0 to ``most``.

        Raises:
            GuestProtocolError: it is not one, or there is no such node, and no default.
        """
        text = self.text(name, None if default is None else str(default)).strip()
        if not (text.isdigit() and len(text) <= 10 and int(text) <= most):
            raise GuestProtocolError(f"{self._directory}/{name} is {text[:40]!r}, not a number from 0 to {most}")
        return int(text)

    def flag(self, name: str) -> bool:
        """Whether a feature is said to be there: a number other than 0."""
        return self.number(name, 0) != 0
