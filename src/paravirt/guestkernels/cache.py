"""The cache folder: entries appear whole or not at all, and one process at a time fills it.

The folder is ``$PARAVIRT_CACHE``, else ``$XDG_CACHE_HOME/paravirt``, else ``~/.cache/paravirt``. An entry
is a folder under it, built under another name and renamed when it is complete. What a killed process left
half-done is removed by the next one that builds the same entry.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from paravirt.errors import UserError


def cache_dir() -> Path:
    """Where everything that was fetched or built for the user is kept. The folder need not exist yet.

    Raises:
        UserError: the user has no home directory and no variable names another place.
    """
    named = os.environ.get("PARAVIRT_CACHE")
    if named:
        return Path(named).expanduser().absolute()
    # The XDG base directory specification: a relative path there is to be ignored.
    xdg = os.environ.get("XDG_CACHE_HOME")
    if xdg and Path(xdg).is_absolute():
        return Path(xdg) / "paravirt"
    try:
        return Path.home() / ".cache" / "paravirt"
    except RuntimeError as error:
        raise UserError("There is no home directory to keep a cache in; set PARAVIRT_CACHE.") from error


class Cache:
    """The entries below one folder, by name; a name may hold slashes."""

    def __init__(self, root: Path | None = None) -> None:
        self.root = cache_dir() if root is None else root

    def entry(self, name: str) -> Path | None:
        """The folder of the entry ``name``, or None when there is none."""
        path = self.root / name
        return path if path.is_dir() else None

    def make(self, name: str, fill: Callable[[Path], None]) -> Path:
        """The folder of the entry ``name``; when it is missing, ``fill(folder)`` makes its content first.

        Whatever ``fill`` raises, nothing of the unfinished entry stays.

        Raises:
            UserError: the cache folder cannot be written.
        """
        found = self.entry(name)
        if found is not None:
            return found
        with self.locked():
            found = self.entry(name)  # another process may have made it while we waited
            if found is not None:
                return found
            target = self.root / name
            target.parent.mkdir(parents=True, exist_ok=True)
            for leftover in target.parent.glob(f".{target.name}.*.partial"):
                shutil.rmtree(leftover, ignore_errors=True)
            partial = Path(
                tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".partial", dir=target.parent)
            )
            try:
                partial.chmod(0o755)
                fill(partial)
                partial.rename(target)
            except OSError as error:
                raise self._cannot_write(error) from error
            finally:
                shutil.rmtree(partial, ignore_errors=True)
            return target

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the cache's lock; other processes that want to add something wait."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.root / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise self._cannot_write(error) from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    def _cannot_write(self, error: OSError) -> UserError:
        return UserError(
            f"The cache folder {self.root} cannot be written ({error.strerror or error}); "
            "set PARAVIRT_CACHE to name another."
        )
