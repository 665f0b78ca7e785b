"""An emulator's process: started, listened to until a text or too late, and ended whatever happens."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from paravirt.errors import UserError

_TAIL = 1000


@dataclass(frozen=True)
class Heard:
    """What a process said up to the awaited text, and the seconds from its start until then."""

    seconds: float
    text: str


def listen(
    name: str, command: Sequence[str], environment: Mapping[str, str], awaited: str, timeout: float
) -> Heard:
    """Run ``command``, whose standard output is a guest's console, until ``awaited`` is there; then kill it.

    ``environment`` is added to our own, ``timeout`` is in seconds, and ``name`` stands for the process in errors.

    Raises:
        UserError: it could not be started, it ended too early, or it took too long; with the end of what it said.
    """
    wanted = awaited.encode()
    with tempfile.TemporaryFile() as complaints:
        begin = time.perf_counter()
        try:
            # A session of its own: no Ctrl-C reaches it before us, and all of it can be ended at once.
            process = subprocess.Popen(
                command,
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=complaints,
                start_new_session=True,
            )
        except OSError as error:
            raise UserError(f"{name} cannot be started ({error.strerror or error}).") from error
        try:
            text, seconds, ended = _read(process, wanted, begin, timeout)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if process.stdout is not None:
                process.stdout.close()
        if seconds is not None:
            return Heard(seconds, text.decode(errors="replace"))
        complaints.seek(0)
        said = (complaints.read() + text)[-_TAIL:].decode(errors="replace")
        how = "ended" if ended else f"was stopped after {timeout:g} s"
        raise UserError(f"{name} {how} without having said {awaited!r}; its last words: {said!r}.")


def _read(
    process: subprocess.Popen[bytes], wanted: bytes, begin: float, timeout: float
) -> tuple[bytearray, float | None, bool]:
    """All output up to ``wanted``, when that came (None: it did not), and whether the process ended by itself."""
    if process.stdout is None:
        raise ValueError("the process must write to a pipe")
    text = bytearray()
    while (left := begin + timeout - time.perf_counter()) > 0:
        if not select.select([process.stdout], [], [], left)[0]:
            continue
        data = os.read(process.stdout.fileno(), 65536)
        if not data:
            return text, None, True
        # The text may have begun in what was there before.
        since = max(0, len(text) - len(wanted))
        text += data
        if text.find(wanted, since) >= 0:
            return text, time.perf_counter() - begin, False
    return text, None, False
