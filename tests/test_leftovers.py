"""What a test leaves behind is seen, and what others leave is not its fault."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from .leftovers import Leftovers


def test_files_and_threads_are_seen_until_they_go(tmp_path: Path) -> None:
    theirs = os.open(tmp_path, os.O_RDONLY)
    before, end = Leftovers(), threading.Event()
    os.close(theirs)
    assert before.new() == []
    ours = [*os.pipe(), os.pidfd_open(os.getpid())]  # of no other test
    thread = threading.Thread(target=end.wait)
    assert len(before.files()) == len(before.new()) == 3
    thread.start()
    assert before.new() == [*before.files(), str(thread)]
    end.set()
    thread.join()
    for descriptor in ours:
        os.close(descriptor)
    assert before.stay() == []
