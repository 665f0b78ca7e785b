"""What the daemon leaves behind: a log, the hypervisor's messages, and a journal of its domains."""

from __future__ import annotations

import datetime
import json
import logging
import os
import threading
import time
from collections import deque
from pathlib import Path
from typing import Any, Final, TextIO

from paravirt.domain0.console import Console
from paravirt.domain0.daemon.paths import Places
from paravirt.errors import UserError
from paravirt.terminal import write_all

logger = logging.getLogger(__name__)
RING: Final = 32 << 10
"""Bytes that the hypervisor's ring of messages holds (Xen's default is 16 KiB for one processor, and grows)."""

LOG_LIMIT: Final = 16 << 20
"""Bytes of a log; a longer one becomes the previous one (``.1``) at the daemon's start."""


class Log:
    """Lines of JSON: ``time`` (UTC), ``event``, and what belongs to it. Threads may share it.

    Parameters:
        copy: a stream that gets every line too.
    """

    def __init__(self, path: Path, copy: TextIO | None = None) -> None:
        self._lock = threading.Lock()
        self._copy = copy
        if path.exists() and path.stat().st_size > LOG_LIMIT:
            path.replace(path.with_suffix(path.suffix + ".1"))
        self._file: TextIO | None = open(path, "a", encoding="utf-8", opener=_private)  # noqa: SIM115 - while we live

    def write(self, event: str, **fields: Any) -> None:
        """Add a line."""
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
        line = json.dumps({"time": now, "event": event, **fields}, default=str)
        with self._lock:
            if self._file is not None:
                self._file.write(line + "\n")
                self._file.flush()
            if self._copy is not None:
                print(line, file=self._copy, flush=True)

    def close(self) -> None:
        """Nothing more comes."""
        with self._lock:
            if self._file is not None:
                self._file.close()
                self._file = None


class LogHandler(logging.Handler):
    """What modules say through ``logging`` goes into the log too."""

    def __init__(self, log: Log) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        trouble = logging.Formatter().formatException(record.exc_info) if record.exc_info else None
        self._log.write("warning", module=record.name, message=record.getMessage(), trouble=trouble)


class Messages:
    """The hypervisor's own messages, for ``xl dmesg``: the oldest give way."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lines: deque[str] = deque()
        self._size = 0

    def add(self, text: str) -> None:
        """Add a message of one or more lines."""
        with self._lock:
            for line in text.splitlines():
                self._lines.append(f"(XEN) {line}\n")
                self._size += len(line) + 7
            while self._size > RING:
                self._size -= len(self._lines.popleft())

    def read(self, clear: bool) -> str:
        """All that is there; ``clear``: it is forgotten then."""
        with self._lock:
            text = "".join(self._lines)
            if clear:
                self._lines.clear()
                self._size = 0
            return text


class ConsoleLog:
    """Consoles in files, one for each name of a domain, as xenconsoled keeps them when it is told to.

    Parameters:
        folder: where ``guest-NAME.log`` is; what is in it already stays.

    Raises:
        UserError: the folder cannot be used.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"The folder for consoles {folder} cannot be made: {error.strerror}.") from error

    def follow(self, name: str, console: Console) -> None:
        """Write all output of a console, until it is closed.

        Raises:
            UserError: the file cannot be opened.
        """
        path = self._folder / f"guest-{name}.log"
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise UserError(f"The console's log {path} cannot be written: {error.strerror}.") from error

        def said(data: bytes) -> None:
            try:
                write_all(fd, data)
            except OSError as error:  # the disk is full, perhaps: the guest goes on, and its console with it
                logger.warning("the console's log %s: %s", path, error.strerror)

        console.listen(said, closed=lambda: os.close(fd))


class Journal:
    """Which domains there are, in a file: what is in it when a daemon starts, died with the one before."""

    def __init__(self, places: Places) -> None:
        self._path = places.journal

    def left_behind(self) -> list[dict[str, Any]] | None:
        """The domains of a daemon that did not end in an orderly way; None: the last one did, or there was none."""
        try:
            record = json.loads(self._path.read_text(encoding="utf-8"))
            return [dict(domain) for domain in record["domains"]]
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError):
            return []  # the journal is replaced as a whole, so this was not written by a daemon

    def write(self, domains: list[dict[str, Any]]) -> None:
        """Put down which domains there are now."""
        new = self._path.with_suffix(".new")
        with open(new, "w", encoding="utf-8", opener=_private) as file:
            json.dump({"pid": os.getpid(), "time": time.time(), "domains": domains}, file)
            file.flush()
            os.fsync(file.fileno())
        new.replace(self._path)

    def remove(self) -> None:
        """The daemon ends in an orderly way."""
        self._path.unlink(missing_ok=True)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
