"""The oracle's own parts that need no Xen: transcripts, settings, and the parsing of a log."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from .transcript import Transcript, normalised
from .xenrun import Setting, _parse, settings

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
