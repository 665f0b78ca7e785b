"""The oracle's own parts that need no Xen: transcripts, settings, and the parsing of a log."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ..xl import sessions
from .dom0 import Result
from .golden import _lines
from .kernels import Run
from .transcript import Transcript, normalised
from .xenrun import Setting, _parse, settings
from .xlrun import _answer, configuration

printable = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E))
plain_lines = st.lists(printable.filter(lambda line: not line.startswith("# ")))


@given(
    plain_lines, st.sampled_from(["poweroff", "crash"]), st.dictionaries(st.just("Xen"), st.just("4.17.7"))
)
def test_a_transcript_survives_being_written(lines: list[str], ended: str, header: dict[str, str]) -> None:
    made = Transcript(lines, ended, header)
    assert Transcript.parse(made.text()) == made


def test_a_transcript_must_say_how_the_guest_ended() -> None:
    with pytest.raises(ValueError, match="last line"):
        Transcript.parse("# Xen: 4.17.7\nsome line\n")


def test_differences_leave_the_headers_out() -> None:
    one = Transcript(["a", "b"], "poweroff", {"date": "2026-01-01"})
    assert not one.differences(Transcript(["a", "b"], "poweroff"), "one", "other")
    changed = one.differences(Transcript(["a", "c"], "crash"), "one", "other")
    assert changed[:2] == ["--- one", "+++ other"]
    assert {"-b", "+c", "-[poweroff]", "+[crash]"} <= set(changed)


def test_a_log_is_taken_apart() -> None:
    answer = _parse("Xen 4.17\n| first\n(XEN) noise\n|\n|  third\nlaunch: guest ended: crash\n")
    assert answer.lines == ["first", "", " third"]
    assert answer.ended == "crash"
    assert _parse("| only\n").ended == "timeout"
    assert _parse("launch: createdomain: -ENOMEM\n").ended == "launch: createdomain: -ENOMEM"


def test_settings_come_from_a_file(tmp_path: Path) -> None:
    assert settings(tmp_path) == {"": Setting()}
    (tmp_path / "run").write_text('# why\nvcpus=2 ended=crash\ncmdline="a b"\n')
    assert settings(tmp_path) == {"": Setting(vcpus=2, ended="crash", cmdline="a b")}
    (tmp_path / "run").write_text("one: cmdline=1\n\ntwo: memory=64\n")
    assert settings(tmp_path) == {"one": Setting(cmdline="1"), "two": Setting(memory=64)}
    (tmp_path / "run").write_text("cpus=2\n")
    with pytest.raises(TypeError):
        settings(tmp_path)


def test_console_text_becomes_lines() -> None:
    assert normalised("a\r\nb\n") == ["a", "b"]
    assert normalised("a\n\n") == ["a", ""]
    assert normalised("a") == ["a"]
    assert normalised("") == []


@given(
    st.lists(
        st.builds(
            sessions.Step,
            st.from_regex(r"[a-z][ -~]*", fullmatch=True),
            st.lists(printable.filter(lambda line: not line.startswith(("$ ", "2>", "["))), max_size=3).map(tuple),
            st.lists(printable.filter(lambda line: line == line.rstrip()), max_size=3).map(tuple),
            st.integers(0, 255),
        ),
        max_size=4,
    ).map(tuple)
)
def test_a_session_survives_being_written(steps: tuple[sessions.Step, ...]) -> None:
    assert sessions.Session.parse(sessions.Session(2, steps).text()) == sessions.Session(2, steps)


def test_a_session_may_have_commands_that_were_not_run() -> None:
    session = sessions.Session.parse("# physical CPUs: 1\n$ one\n$ two\n[3]\n$ three\n")
    assert [(step.command, step.status) for step in session.steps] == [("one", None), ("two", 3), ("three", None)]
    with pytest.raises(ValueError, match="belongs to no command"):
        sessions.Session.parse("# physical CPUs: 1\nnobody said this\n")


def test_what_is_another_one_each_time_is_left_out_of_a_session() -> None:
    uuid = "3f2504e0-4f89-11d3-9a0c-0305e82c3301"
    assert _lines(f"{uuid}  1  one\r\n") == ("01234567-89ab-cdef-0123-456789abcdef  1  one",)
    assert _lines(" 11:22:33 up  0:01,\n") == (" 00:00:00 up  0:01,",)
    assert _lines("Usage: xl [-v] list\n\nwords\n") == ("Usage: xl [-v] list",)
    verbs = "Usage xl [-v] <subcommand>\n\nfull list:\n\n one     words\n         more\n two     words\n"
    assert _lines(verbs) == ("Usage xl [-v] <subcommand>", " one", " two")


def test_a_configuration_says_how_a_kernel_is_to_be_run() -> None:
    run = Run("iret.one", "iret", Setting(memory=48, vcpus=2, cmdline='a "b"', ended="crash"))
    text = configuration(run)
    assert 'name = "iret.one"\ntype = "pv"\nkernel = "iret"\nextra = "a \\"b\\""\nmemory = 48\nvcpus = 2\n' in text
    assert 'on_crash = "preserve"\n' in text


@pytest.mark.parametrize(
    ("errors", "status", "ended"),
    [
        ("Domain 3 has shut down, reason code 4 0x4\nDone.\n", "0", "watchdog"),
        ("Domain has suspended.\n", "0", "suspend"),
        ("Waiting for domain x (domid 1) to die\nTerminated\n", "143", "timeout"),
        ("Neither kernel nor bootloader specified\n", "1", "Neither kernel nor bootloader specified"),
    ],
)
def test_how_a_domain_of_xl_ended(errors: str, status: str, ended: str) -> None:
    answer = _answer(Result("x", status, "one\r\ntwo\n", errors))
    assert (answer.lines, answer.ended) == (["one", "two"], ended)
