"""The steps of ``paravirt run``: ``--expect`` and ``--send``, in the order in which they were given.

click collects the values of each option, and forgets how the two kinds were mixed. Its parser still knows: it
notes every option that it meets.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import click


@dataclass(frozen=True)
class Expect:
    """Wait until ``text`` appears in the output that follows the previous match."""

    text: str


@dataclass(frozen=True)
class Send:
    """Type ``data``."""

    data: bytes


Step = Expect | Send

_SIMPLE = {
    "a": 7, "b": 8, "t": 9, "n": 10, "v": 11, "f": 12, "r": 13, "e": 27, "E": 27,
    '"': 34, "'": 39, "?": 63, "\\": 92,
}  # fmt: skip
_ESCAPE = re.compile(r"\\(?:([0-7]{1,3})|x([0-9a-fA-F]{1,2})|(.?))", re.DOTALL)


def unescape(text: str) -> bytes:
    r"""Text with C's escapes (and ``\\e``) as the bytes to send; anything else is UTF-8.

    Raises:
        ValueError: an escape that C does not know, or that is cut off.
    """
    out = bytearray()
    at = 0
    for found in _ESCAPE.finditer(text):
        out += text[at : found.start()].encode("utf-8", "surrogateescape")
        at = found.end()
        octal, hexadecimal, simple = found.groups()
        if octal is not None:
            value = int(octal, 8)
        elif hexadecimal is not None:
            value = int(hexadecimal, 16)
        else:
            value = _SIMPLE.get(simple, -1)
        if not 0 <= value < 256:
            raise ValueError(f"{found[0]!r} is not an escape sequence of C" if simple != "" else
                             "a backslash at the end stands for nothing; write two")  # fmt: skip
        out.append(value)
    out += text[at:].encode("utf-8", "surrogateescape")
    return bytes(out)


class SendType(click.ParamType[bytes]):
    """The text of ``--send``."""

    name = "text"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> bytes:
        if isinstance(value, bytes):
            return value
        try:
            return unescape(str(value))
        except ValueError as error:
            self.fail(f"{error}.", param, ctx)


class StepsCommand(click.Command):
    """A command with the options ``--expect`` and ``--send``, whose common order :func:`ordered` tells."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        _, _, order = self.make_parser(ctx).parse_args(args=list(args))
        ctx.meta[__name__] = [param.name for param in order if param.name in ("expect", "send")]
        return super().parse_args(ctx, args)


def ordered(ctx: click.Context, expect: Sequence[str], send: Sequence[bytes]) -> list[Step]:
    """Both kinds of steps, mixed as on the command line."""
    queues: Mapping[str, list[Step]] = {
        "expect": [Expect(text) for text in expect],
        "send": [Send(data) for data in send],
    }
    return [queues[name].pop(0) for name in ctx.meta[__name__]]
