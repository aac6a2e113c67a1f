"""docs/reliability.md names tests that exist."""

import re

import pytest
from conftest import ROOT

PAGE = (ROOT / "docs" / "reliability.md").read_text()


def named() -> list[tuple[str, str]]:
    """(file, test) of each test on the page; a name without a file is in the file before."""
    file, found = "", []
    for before, test in re.findall(r"`(\w+\.py)?::(\w+)", PAGE):
        file = before or file
        found.append((file, test))
    return found


@pytest.mark.parametrize(("file", "test"), sorted(set(named())))
def test_a_promise_has_its_test(file: str, test: str) -> None:
    assert f"def {test}(" in (ROOT / "tests" / file).read_text()


def test_every_promise_names_one() -> None:
    rows = [
        line for line in PAGE.splitlines() if line.startswith("| ") and "what " not in line and "inputs" not in line
    ]
    rows = [line for line in PAGE.splitlines() if line.startswith("| ")]
    rows = [line for line in rows if not re.match(r"\| (what happens|what is wrong|target|[a-z_]+) \|", line)]
    assert len(rows) > 40
    assert all("::test_" in line for line in rows)
