"""The order of --expect and --send, and the escapes of --send."""

from __future__ import annotations

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paravirt.cli.steps import Expect, Send, SendType, Step, StepsCommand, ordered, unescape


def parse(*arguments: str) -> list[Step]:
    """The steps that a command line asks for."""
    seen: list[Step] = []

    @click.command(cls=StepsCommand)
    @click.option("--append")
    @click.option("--expect", multiple=True)
    @click.option("--send", multiple=True, type=SendType())
    @click.argument("kernel")
    @click.pass_context
    def command(
        ctx: click.Context, append: str, expect: tuple[str, ...], send: tuple[bytes, ...], kernel: str
    ) -> None:
        seen.extend(ordered(ctx, expect, send))

    command.main(list(arguments), standalone_mode=False)
    return seen


def test_the_order_across_both_kinds_is_kept() -> None:
    line = "--send a --expect=b --append x --expect c K --send d --expect a"
    assert parse(*line.split()) == [Send(b"a"), Expect("b"), Expect("c"), Send(b"d"), Expect("a")]


def test_no_steps() -> None:
    assert parse("K") == []


@given(st.lists(st.tuples(st.booleans(), st.text("abc", min_size=1))))
def test_any_mixture(steps: list[tuple[bool, str]]) -> None:
    line = [word for is_send, text in steps for word in ("--send" if is_send else "--expect", text)]
    wanted = [Send(text.encode()) if is_send else Expect(text) for is_send, text in steps]
    assert parse(*line, "K") == wanted


def test_a_bad_escape_is_bad_usage() -> None:
    with pytest.raises(click.BadParameter, match="not an escape sequence of C"):
        parse("--send", r"\q", "K")


@pytest.mark.parametrize(
    ("text", "data"),
    [
        (r"ls\n", b"ls\n"),
        (r"\r\t\a\b\f\v\e", b"\r\t\a\b\f\v\x1b"),
        (r"\\n", b"\\n"),
        (r"\"\'\?", b"\"'?"),
        (r"\0\00\000\0007", b"\0\0\0\x007"),
        (r"\101\x41\x4\x414", b"AA\x04A4"),
        (r"\377\xff", b"\xff\xff"),
        ("ä", "ä".encode()),
        ("", b""),
        ("a\nb", b"a\nb"),
    ],
)
def test_escapes(text: str, data: bytes) -> None:
    assert unescape(text) == data


@pytest.mark.parametrize("text", ["\\", "a\\", r"\q", r"\x", r"\xg", r"\400", r"\777", r"\9", "\\\n"])
def test_what_c_does_not_know(text: str) -> None:
    with pytest.raises(ValueError, match=r"escape|backslash"):
        unescape(text)


@given(st.binary())
def test_every_byte_can_be_written(data: bytes) -> None:
    assert unescape("".join(f"\\{byte:03o}" for byte in data)) == data
    assert unescape("".join(f"\\x{byte:02x}" for byte in data)) == data


@given(st.text(st.characters(exclude_characters="\\", exclude_categories=["Cs"])))
def test_other_text_is_utf8(text: str) -> None:
    assert unescape(text) == text.encode()
