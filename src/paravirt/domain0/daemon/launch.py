"""Finding the daemon, or starting it. Clients use this, so that it imports nothing heavy."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import sys
import time
from collections.abc import Iterator
from typing import Final

from paravirt.domain0.daemon.paths import Places, prepare
from paravirt.domain0.daemon.protocol import Channel
from paravirt.errors import UserError

_ABSENT: Final = (errno.ENOENT, errno.ECONNREFUSED)
_LOOK_AGAIN: Final = 0.02
"""Seconds between looks at a daemon that is starting or ending."""


def connect_to(where: Places) -> Channel | None:
    """A connection to the daemon; None if none runs.

    Raises:
        UserError: its socket cannot be used.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.connect(str(where.socket))
    except OSError as error:
        connection.close()
        if error.errno in _ABSENT:
            return None
        raise UserError(f"The daemon's socket {where.socket} cannot be used: {error.strerror}.") from error
    return Channel(connection)


def connect_or_start(where: Places) -> Channel:
    """A connection to the daemon, which is started if there is none. Of several who try at once, one starts it.

    Raises:
        UserError: it does not start, and why.
    """
    channel = connect_to(where)
    if channel is not None:
        return channel
    prepare(where)
    with _held(where.start):
        while (channel := connect_to(where)) is None:
            if not _is_held(where.lock):
                launch(where, [])
            else:  # a daemon is just starting by itself, or ending
                time.sleep(_LOOK_AGAIN)
    return channel


def _is_held(path: os.PathLike[str]) -> bool:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    finally:
        os.close(fd)


def wait_for_end(where: Places) -> None:
    """Return when the daemon that runs has ended."""
    with _held(where.lock):
        return


@contextlib.contextmanager
def _held(path: os.PathLike[str]) -> Iterator[None]:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def launch(where: Places, arguments: list[str]) -> None:
    """Start a daemon, and return when it serves.

    Raises:
        UserError: it does not, and what it said.
    """
    import subprocess  # not for those who find a daemon

    reader, writer = os.pipe()
    log = os.open(where.errors, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    command = [sys.executable, "-P", "-m", "paravirt.domain0.daemon.main", "--ready-fd", str(writer), *arguments]
    try:
        # It leaves its first process behind at once.
        subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=[writer],
            start_new_session=True,
            cwd="/",
            check=False,
        )
    finally:
        os.close(writer)
        os.close(log)
    with os.fdopen(reader, "rb") as answer:
        said = answer.read()
    if said != b"ready\n":
        raise UserError(said.decode("utf-8", "replace") or f"The daemon did not start; {where.errors} may say why.")
