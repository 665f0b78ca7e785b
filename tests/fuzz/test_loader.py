"""A short run of the loader's fuzzer."""

from __future__ import annotations

import pytest

from paravirt.domain0.builder import image

from . import loader


def test_mutated_kernels_are_loaded_or_refused_in_a_sentence() -> None:
    fuzzer = loader.LoaderFuzzer(seed=5)
    kept = len(fuzzer.corpus)
    fuzzer.run(1500)
    assert fuzzer.accepted > 50
    assert fuzzer.refused > 500
    # Guided: some of what was made reached lines that the seeds do not.
    assert len(fuzzer.corpus) > kept + 10


def test_every_seed_is_a_kernel() -> None:
    fuzzer = loader.LoaderFuzzer(seed=1)
    assert (fuzzer.accepted, fuzzer.refused) == (len(loader.seeds()), 0)


def test_a_mistake_is_found_and_the_file_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    def careless(*arguments: object) -> None:
        raise IndexError("careless")

    fuzzer = loader.LoaderFuzzer(seed=1)
    monkeypatch.setattr(image, "_check_segments", careless)
    with pytest.raises(AssertionError, match="IndexError: careless; the file: 7f454c46"):
        fuzzer.feed(loader.seeds()[0])
