"""The corpus, and a little fuzzing of each target; python tests/fuzz.py does more."""

from pathlib import Path

import pytest
from fuzz import CORPUS, TARGETS, fuzz

FILES = sorted(path for folder in CORPUS.iterdir() for path in folder.iterdir())


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_the_corpus_is_read_or_refused(path: Path, tmp_path: Path) -> None:
    TARGETS[path.parent.name].read(path.read_bytes(), tmp_path)


@pytest.mark.parametrize("name", TARGETS)
def test_damaged_input_is_read_or_refused(name: str, tmp_path: Path) -> None:
    assert fuzz(name, tmp_path, examples=150, seconds=60, number=0) >= 100
