"""Where the daemon and its clients meet: the user's own folder for things that last as long as a login."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from paravirt.errors import UserError

RUNTIME_DIR: Final = "PARAVIRT_RUNTIME_DIR"
"""The environment variable that names another folder (for tests, and for more than one machine)."""

MAX_SOCKET_PATH: Final = 107


@dataclass(frozen=True)
class Places:
    """The daemon's files, all in one folder of the user's.

    Attributes:
        socket: where it listens; ``xenstore`` is that of its store.
        lock: held by the daemon as long as it lives.
        start: held by a client as long as it starts one.
        journal: which domains there are, for the next daemon if this one is killed.
        log: what it did, one JSON object a line; ``errors``: what Python had to say.
        crashes: reports on domains that crashed.
    """

    folder: Path

    @property
    def socket(self) -> Path:
        return self.folder / "paravirtd.sock"

    @property
    def xenstore(self) -> Path:
        return self.folder / "xenstored" / "socket"

    @property
    def lock(self) -> Path:
        return self.folder / "paravirtd.lock"

    @property
    def start(self) -> Path:
        return self.folder / "start.lock"

    @property
    def journal(self) -> Path:
        return self.folder / "domains.json"

    @property
    def log(self) -> Path:
        return self.folder / "paravirtd.log"

    @property
    def errors(self) -> Path:
        return self.folder / "paravirtd.err"

    @property
    def crashes(self) -> Path:
        return self.folder / "crashes"


def places() -> Places:
    """The user's places; they need not exist yet.

    Raises:
        UserError: the folder's name is too long for a socket.
    """
    named = os.environ.get(RUNTIME_DIR)
    login = os.environ.get("XDG_RUNTIME_DIR")
    if named:
        folder = Path(named).absolute()
    elif login:
        folder = Path(login).absolute() / "paravirt"
    else:
        folder = Path("/tmp") / f"paravirt-{os.getuid()}"
    found = Places(folder)
    for path in (found.socket, found.xenstore):
        if len(os.fsencode(path)) > MAX_SOCKET_PATH:
            raise UserError(f"The folder {folder} has too long a name to hold a socket; set {RUNTIME_DIR}.")
    return found


def prepare(found: Places) -> None:
    """Make the folder, for its owner alone.

    Raises:
        UserError: it is somebody else's, or open to others, or cannot be made.
    """
    try:
        found.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = found.folder.lstat()
    except OSError as error:
        raise UserError(f"The folder {found.folder} cannot be made: {error.strerror}.") from error
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
        raise UserError(f"{found.folder} is not a folder of yours, and is not used.")
    if status.st_mode & 0o077:
        raise UserError(f"The folder {found.folder} is open to others (its mode has to be 0700), and is not used.")
