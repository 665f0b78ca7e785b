"""The commands ``xenstore-ls``, ``-read``, ``-write``, ``-list``, ``-rm``, ``-chmod``, ``-exists`` and ``-watch``.

Options, output and statuses are those of Xen's own (tools/xenstore/xenstore_client.c, 4.17): 0, or 1 for anything that
goes wrong.
"""

from __future__ import annotations

import getopt
import os
import re
import sys
from collections.abc import Callable
from typing import Final

from paravirt.errors import UserError
from paravirt.xs.client import StoreRefusal, XenStore

USAGE: Final = {
    "ls": ("fps", "[-h] [-f] [-p] [-s] [path]", 0),
    "read": ("psR", "[-h] [-p] [-s] [-R] key [...]", 1),
    "write": ("sR", "[-h] [-s] [-R] key value [...]", 2),
    "list": ("ps", "[-h] [-p] [-s] key [...]", 1),
    "rm": ("st", "[-h] [-s] [-t] key [...]", 1),
    "chmod": ("urs", "[-h] [-u] [-r] [-s] key mode [modes...]", 2),
    "exists": ("ps", "[-h] [-p] [-s] key [...]", 1),
    "watch": ("n:s", "[-h] [-n NR] key [...]", 1),
}
"""For each command its options, its usage, and how many arguments it needs."""

WIDTH: Final = 80
PERMISSIONS_COLUMN: Final = 60
_PERMISSION: Final = re.compile(r"[nrwb][0-9]+")
_ESCAPES: Final = {"\n": "\\n", "\r": "\\r", "\t": "\\t", "\\": "\\\\"}
_UNESCAPES: Final = {"n": "\n", "r": "\r", "t": "\t", "": "\0"}
_ESCAPED: Final = re.compile(r"\\(?:x([0-9a-fA-F]{1,2})|([0-7]{1,3})|(.?))", re.DOTALL)

Options = set[str]


class _Failed(Exception):
    """The command fails with this sentence."""


def shown(value: bytes) -> str:
    """A value as it is printed: on one line, with escapes for what cannot be."""
    text = []
    for byte in value:
        character = chr(byte)
        if character in _ESCAPES:
            text.append(_ESCAPES[character])
        elif 0x20 <= byte < 0x7F:
            text.append(character)
        else:
            text.append(f"\\{byte:03o}" if byte < 8 else f"\\x{byte:02x}")
    return "".join(text)


def meant(text: str) -> bytes:
    """The value that a text on the command line stands for: escapes are taken back."""

    def replace(match: re.Match[str]) -> str:
        hexadecimal, octal, other = match.groups()
        if hexadecimal:
            return chr(int(hexadecimal, 16))
        if octal:
            return chr(int(octal, 8) & 0xFF)
        return _UNESCAPES.get(other, other)

    raw = text.encode("utf-8", "surrogateescape").decode("latin-1")
    return _ESCAPED.sub(replace, raw).encode("latin-1")


# --- the commands ------------------------------------------------------------------------------------------------


def _ls(store: XenStore, options: Options, words: list[str]) -> None:
    width = WIDTH
    if sys.stdout.isatty():
        width = os.get_terminal_size().columns - 2
    top = words[0] if words else "/"
    try:
        _ls_below(store, top, options, width, 0)
    except StoreRefusal as refusal:
        raise _Failed(f"{top} cannot be listed: {_words(refusal)}") from refusal


def _ls_below(store: XenStore, path: str, options: Options, width: int, depth: int) -> None:
    for name in store.directory(path):
        below = f"{path.rstrip('/')}/{name}"
        text = below if "f" in options else " " * depth + name
        try:
            value = shown(store.read(below))
            permissions = ",".join(store.permissions(below)) if "p" in options else None
        except StoreRefusal:
            continue  # it went while we were looking
        sys.stdout.write(_line(text, value, permissions, width, "f" in options) + "\n")
        _ls_below(store, below, options, width, depth + 1)


def _line(text: str, value: str, permissions: str | None, width: int, whole: bool) -> str:
    mark = ' = "..."'
    if not whole and len(text) + len(value) + len(mark) > width:
        line = f'{text} = "{value[: max(0, width - len(mark) - len(text))]}\\..."'
    else:
        line = f'{text} = "{value}"'
        if permissions is not None:
            line += " "
            end = 0 if whole else min(PERMISSIONS_COLUMN, width)
            line += "".join("." if column & 1 else " " for column in range(len(line), end))
    return line if permissions is None else f"{line}  ({permissions})"


def _read(store: XenStore, options: Options, words: list[str]) -> None:
    for path in words:
        try:
            value = store.read(path)
        except StoreRefusal as refusal:
            raise _Failed(f"couldn't read path {path}") from refusal
        prefix = f"{path}: " if "p" in options else ""
        sys.stdout.flush()
        end = b"" if "R" in options else b"\n"
        sys.stdout.buffer.write(prefix.encode() + (value if "R" in options else shown(value).encode()) + end)


def _write(store: XenStore, options: Options, words: list[str]) -> None:
    if len(words) % 2:
        raise _Failed("each path needs a value")
    for path, text in zip(words[::2], words[1::2], strict=True):
        value = text.encode("utf-8", "surrogateescape") if "R" in options else meant(text)
        try:
            store.write(path, value)
        except StoreRefusal as refusal:
            raise _Failed(f"could not write path {path}") from refusal


def _list(store: XenStore, options: Options, words: list[str]) -> None:
    for path in words:
        try:
            names = store.directory(path)
        except StoreRefusal as refusal:
            raise _Failed(f"could not list path {path}") from refusal
        prefix = f"{path}/" if "p" in options else ""
        sys.stdout.write("".join(f"{prefix}{name}\n" for name in names))


def _remove(store: XenStore, options: Options, words: list[str]) -> None:
    for path in words:
        try:
            store.remove(path)
            while "t" in options and path.count("/") > 1:  # tidy: parents that are empty now go too
                path = path[: path.rindex("/")]
                if store.directory(path) or store.read(path):
                    break
                store.remove(path)
        except StoreRefusal as refusal:
            raise _Failed(f"could not remove path {path}") from refusal


def _chmod(store: XenStore, options: Options, words: list[str]) -> None:
    path, *modes = words
    for mode in modes:
        if not _PERMISSION.fullmatch(mode):
            raise _Failed(f"Invalid permission specification: '{mode}'")
    try:
        _set_below(store, path, modes, "r" in options)
        while "u" in options and path.count("/") > 1:
            path = path[: path.rindex("/")]
            store.set_permissions(path, modes)
    except StoreRefusal as refusal:
        raise _Failed(f"the permissions of {path} cannot be set: {_words(refusal)}") from refusal


def _set_below(store: XenStore, path: str, modes: list[str], recurse: bool) -> None:
    store.set_permissions(path, modes)
    if recurse:
        for name in store.directory(path):
            _set_below(store, f"{path.rstrip('/')}/{name}", modes, True)


def _exists(store: XenStore, options: Options, words: list[str]) -> None:
    for path in words:
        try:
            found = store.exists(path)
        except StoreRefusal as refusal:
            raise _Failed(f"{path} cannot be looked at: {_words(refusal)}") from refusal
        if not found:
            raise _Failed("")


def _watch(store: XenStore, options: Options, words: list[str]) -> None:
    number = next((option[1:] for option in options if option.startswith("n")), "")
    left = int(number) if number.isdigit() else -1
    for path in words:
        try:
            store.watch(path, path)
        except StoreRefusal as refusal:
            raise _Failed(f"{path} cannot be watched: {_words(refusal)}") from refusal
    while left != 0:
        path, _ = store.next_event()
        sys.stdout.write(path + "\n")
        sys.stdout.flush()
        left -= 1


def _words(refusal: StoreRefusal) -> str:
    """An error's name in words, if the host knows it."""
    import errno

    number = getattr(errno, refusal.name, None)
    return os.strerror(number) if isinstance(number, int) else refusal.name


COMMANDS: Final[dict[str, Callable[[XenStore, Options, list[str]], None]]] = {
    "ls": _ls,
    "read": _read,
    "write": _write,
    "list": _list,
    "rm": _remove,
    "chmod": _chmod,
    "exists": _exists,
    "watch": _watch,
}


def run(name: str, words: list[str]) -> int:
    """Run the command ``name`` (ls, read, ...); the exit status."""
    letters, usage, required = USAGE[name]
    try:
        given, arguments = getopt.gnu_getopt(words, "h" + letters)
    except getopt.GetoptError as error:
        sys.stderr.write(f"xenstore-{name}: {error.msg}\n")
        return _usage(name, usage)
    # Options with a value are kept as one word, like n5.
    options = {letter.lstrip("-") + value for letter, value in given}
    if "h" in options or len(arguments) < required:
        return _usage(name, usage)
    try:
        with XenStore() as store:
            COMMANDS[name](store, options, arguments)
        sys.stdout.flush()
    except (UserError, _Failed) as error:
        sys.stdout.flush()
        if str(error):
            sys.stderr.write(f"xenstore-{name}: {error}\n")
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    return 0


def _usage(name: str, usage: str) -> int:
    sys.stderr.write(f"Usage: xenstore-{name} {usage}\n")
    return 1


def main() -> int:
    """The entry point of all of them: the program's name says which."""
    name = os.path.basename(sys.argv[0]).removeprefix("xenstore-")  # noqa: PTH119 - a name, not a path
    if name in COMMANDS:
        return run(name, sys.argv[1:])
    if len(sys.argv) > 1 and sys.argv[1] in COMMANDS:
        return run(sys.argv[1], sys.argv[2:])
    sys.stderr.write(f"Usage: xenstore {'|'.join(COMMANDS)} ...\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
