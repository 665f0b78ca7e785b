"""The grammar of xl's configuration files: text in, settings out, each with its place.

    setting   : name ("=" | "+=") value
    value     : atom | list
    list      : "[" [ value { "," value } [","] ] "]"      newlines may stand anywhere inside
    statements are ended by a newline or ";", and "#" starts a comment

An atom is a string in single or double quotes, with C's escapes, or a number: decimal, hexadecimal (0x) or octal
(a leading 0). xl keeps a number's text and looks at it only where a number is wanted (``name = 0x10`` names a domain
"0x10"), and so does this. Later settings of a name replace earlier ones; ``+=`` appends to a string or a list.

What is accepted is what xl 4.17 accepts (tools/libs/util/libxlu_cfg*), and beyond that escapes of the forms
``\\xHH`` and ``\\ooo``, which its parser mistakes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from paravirt.errors import UserError

MAX_DEPTH: Final = 32
"""Lists in lists: more than any option needs."""

_TOKEN: Final = re.compile(
    r"""(?P<blank>[ \t]+|\#[^\n]*)
      | (?P<newline>\n)
      | (?P<name>[a-z][a-z0-9_.]*)
      | (?P<number>[0-9][0-9a-fx]*)
      | (?P<string>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')
      | (?P<mark>\+=|[=;,\[\]])""",
    re.VERBOSE,
)
_ESCAPE: Final = re.compile(r"\\(?:x([0-9a-fA-F]{1,2})|([0-7]{1,3})|(.))", re.DOTALL)
_SIMPLE: Final = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"} | {
    mark: mark for mark in "\\'\""
}
_WORDS: Final = {"newline": "the end of the line", "end": "the end of the file"}


COMMAND_LINE: Final = "command line"


class Source(NamedTuple):
    """Where a text is from: a file, of so many lines, and behind them what a command line adds to it."""

    name: str
    lines: int

    @classmethod
    def of(cls, name: str, text: str) -> Source:
        """That of a file with this text."""
        return cls(name, text.count("\n") + 1)

    def at(self, line: int) -> str:
        """The words for a line's place."""
        return f"{self.name}:{line}" if line <= self.lines else COMMAND_LINE


class ConfigError(UserError):
    """A configuration cannot be used.

    Attributes:
        source: where it is from.
        line: counted from 1.
        key: the setting that is wrong; empty when the text is not a setting at all.
    """

    def __init__(self, source: Source, line: int, message: str, key: str = "") -> None:
        super().__init__(f"{source.at(line)}: {f'{key}: ' if key else ''}{message}")
        self.source = source
        self.line = line
        self.key = key
        self.message = message


class _Token(NamedTuple):
    kind: str
    text: str
    line: int

    def __str__(self) -> str:
        return _WORDS.get(self.kind, repr(self.text))


@dataclass(frozen=True)
class Item:
    """A value, and the line on which it begins."""

    value: str | list[Item]
    line: int


@dataclass(frozen=True)
class Setting:
    """One setting: the last that its name was given, with what was appended."""

    key: str
    item: Item
    line: int


def parse(text: str, source: Source, overrides: Sequence[str] = ()) -> dict[str, Setting]:
    """Read a configuration; the settings by name, in the order of their first appearance.

    Parameters:
        overrides: settings from a command line, which win.

    Raises:
        ConfigError: the text does not follow the grammar.
    """
    return _Parser("\n".join((text, *overrides)), source).settings()


def render(value: object) -> str:
    """A value (a string, a number, a list of values) in the grammar's own words."""
    if isinstance(value, list | tuple):
        return "[" + ", ".join(render(one) for one in value) + "]"
    if isinstance(value, int):
        return str(value)
    return '"' + "".join(_render_character(character) for character in str(value)) + '"'


def _render_character(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    if character < " " or character == "\x7f":
        return f"\\{ord(character):03o}"
    return character


class _Parser:
    def __init__(self, text: str, source: Source) -> None:
        self._source = source
        self._key = ""
        self._tokens = self._scan(text)
        self._token = next(self._tokens)

    def settings(self) -> dict[str, Setting]:
        found: dict[str, Setting] = {}
        while self._token.kind != "end":
            if self._token.kind == "name":
                self._setting(found)
                self._end_of_statement()
                self._key = ""
            elif self._token.kind == "newline" or self._token.text == ";":
                self._advance()
            else:
                raise self._error(f"a setting (NAME = VALUE) is expected, not {self._token}")
        return found

    def _setting(self, found: dict[str, Setting]) -> None:
        key, line = self._token.text, self._token.line
        self._advance()
        operator = self._token.text
        if self._token.kind != "mark" or operator not in ("=", "+="):
            raise self._error(f"'=' is expected after {key!r}, not {self._token}")
        self._key = key
        self._advance()
        item = self._value(0)
        before = found.get(key)
        if operator == "+=" and before is not None:
            item = self._join(before.item, item)
        found[key] = Setting(key, item, line)

    def _join(self, before: Item, more: Item) -> Item:
        if isinstance(before.value, list) and isinstance(more.value, list):
            return Item(before.value + more.value, before.line)
        if isinstance(before.value, str) and isinstance(more.value, str):
            return Item(before.value + more.value, before.line)
        raise self._error("a list cannot be added to a string, nor a string to a list", more.line)

    def _value(self, depth: int) -> Item:
        token = self._token
        if token.kind == "string":
            self._advance()
            return Item(self._unquote(token), token.line)
        if token.kind == "number":
            self._advance()
            return Item(token.text, token.line)
        if token.text == "[" and token.kind == "mark":
            return self._list(depth + 1)
        raise self._error(f"a string, a number or a list is expected, not {token}")

    def _list(self, depth: int) -> Item:
        line = self._token.line
        if depth > MAX_DEPTH:
            raise self._error(f"lists are nested more than {MAX_DEPTH} deep")
        self._advance()
        items: list[Item] = []
        self._skip_newlines()
        while self._token.text != "]" or self._token.kind != "mark":
            items.append(self._value(depth))
            self._skip_newlines()
            if self._token.kind == "mark" and self._token.text == ",":
                self._advance()
                self._skip_newlines()
            elif self._token.kind != "mark" or self._token.text != "]":
                raise self._error(f"',' or ']' is expected in a list, not {self._token}")
        self._advance()
        return Item(items, line)

    def _end_of_statement(self) -> None:
        if self._token.kind not in ("newline", "end") and self._token.text != ";":
            raise self._error(f"the end of the line or ';' is expected, not {self._token}")

    def _unquote(self, token: _Token) -> str:
        def replace(match: re.Match[str]) -> str:
            hexadecimal, octal, other = match.groups()
            if hexadecimal:
                return chr(int(hexadecimal, 16))
            if octal:
                return chr(int(octal, 8) & 0xFF)
            if other not in _SIMPLE:
                raise self._error(f"\\{other} is not an escape that strings know", token.line)
            return _SIMPLE[other]

        return _ESCAPE.sub(replace, token.text[1:-1])

    def _skip_newlines(self) -> None:
        while self._token.kind == "newline":
            self._advance()

    def _advance(self) -> None:
        self._token = next(self._tokens)

    def _scan(self, text: str) -> Iterator[_Token]:
        line, at = 1, 0
        while at < len(text):
            match = _TOKEN.match(text, at)
            if match is None:
                raise ConfigError(self._source, line, _strange(text, at), self._key)
            kind = match.lastgroup or ""
            if kind != "blank":
                yield _Token(kind, match.group(), line)
            if kind == "newline":
                line += 1
            at = match.end()
        while True:
            yield _Token("end", "", line)

    def _error(self, message: str, line: int | None = None) -> ConfigError:
        return ConfigError(self._source, self._token.line if line is None else line, message, self._key)


def _strange(text: str, at: int) -> str:
    """What is wrong with text that is no token."""
    character = text[at]
    if character in "\"'":
        return "the string is not closed on its line"
    if character == "\r":
        return "the lines end in carriage returns (a file from another system?)"
    if character == "-":
        return "there are no negative numbers"
    word = re.match(r"[^\s=;,\[\]\"']+", text[at:])
    return f"{word.group() if word else character!r} is neither a name (lower case), a number nor a quoted string"
