"""The cache: entries appear whole or not at all."""

from __future__ import annotations

import multiprocessing
import os
import time
from pathlib import Path

import pytest

from paravirt.errors import UserError
from paravirt.guestkernels.cache import Cache, cache_dir


def test_the_folder_follows_the_variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("PARAVIRT_CACHE", raising=False)
    assert cache_dir() == tmp_path / "home/.cache/paravirt"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_dir() == tmp_path / "home/.cache/paravirt"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_dir() == tmp_path / "xdg/paravirt"
    monkeypatch.setenv("PARAVIRT_CACHE", str(tmp_path / "own"))
    assert cache_dir() == tmp_path / "own"


def test_an_entry_is_made_once(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    calls = []

    def fill(folder: Path) -> None:
        calls.append(folder)
        (folder / "file").write_text("content")

    first = cache.make("some/entry", fill)
    assert cache.make("some/entry", fill) == first == cache.entry("some/entry")
    assert len(calls) == 1
    assert (first / "file").read_text() == "content"


@pytest.mark.parametrize("error", [UserError("no"), KeyboardInterrupt(), ZeroDivisionError()])
def test_nothing_stays_of_a_failed_entry(tmp_path: Path, error: BaseException) -> None:
    cache = Cache(tmp_path / "cache")

    def fill(folder: Path) -> None:
        (folder / "half").write_text("x")
        raise error

    with pytest.raises(type(error)):
        cache.make("guests/entry", fill)
    assert cache.entry("guests/entry") is None
    assert list((tmp_path / "cache/guests").iterdir()) == []


def test_leftovers_of_a_killed_process_are_removed(tmp_path: Path) -> None:
    leftover = tmp_path / "guests/.entry.abc.partial"
    leftover.mkdir(parents=True)
    (leftover / "half").write_text("x")
    other = tmp_path / "guests/.other.abc.partial"
    other.mkdir()
    Cache(tmp_path).make("guests/entry", lambda folder: None)
    assert not leftover.exists()
    assert other.exists()


def _make(root: Path, log: Path) -> None:
    def fill(folder: Path) -> None:
        with log.open("a") as out:
            out.write("filled\n")
        time.sleep(0.2)
        (folder / "file").write_text("content")

    path = Cache(root).make("entry", fill)
    if (path / "file").read_text() != "content":
        raise SystemExit(1)


def test_processes_wait_for_each_other(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    arguments = (tmp_path / "cache", tmp_path / "log")
    processes = [context.Process(target=_make, args=arguments) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert (tmp_path / "log").read_text() == "filled\n"


def test_a_folder_that_cannot_be_written_is_the_users_matter(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="cannot be written"):
        Cache(tmp_path / "file" / "cache").make("entry", lambda folder: None)


def test_a_full_disk_is_the_users_matter(tmp_path: Path) -> None:
    def fill(folder: Path) -> None:
        raise OSError(28, os.strerror(28))

    with pytest.raises(UserError, match="No space left"):
        Cache(tmp_path).make("entry", fill)
