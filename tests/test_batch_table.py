"""The table of a batch: who may add to it, what is there, and what is never lost or deleted. No Ray."""

import json
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from cloth_segmentation.errors import RunError

pytest.importorskip("pyarrow")

import pyarrow as pa
import pyarrow.parquet as pq

from cloth_segmentation.batch import table as module
from cloth_segmentation.batch.stores import Store, open_store
from cloth_segmentation.batch.table import ROW, Table

SETTINGS: dict[str, Any] = {"weights": "abc", "size": (64, 64), "pack": "tar"}
COLUMNS = pa.schema([*ROW, ("pictures", pa.list_(pa.struct({"name": pa.string(), "content": pa.binary()})))])


def rows(*keys: str) -> pa.Table:
    return pa.Table.from_pylist(
        [{"key": key, "pictures": [{"name": f"mask/{key}.png", "content": key.encode()}]} for key in keys], COLUMNS
    )


def open_table(folder: Path, *, resume: bool = False, **settings: Any) -> Table:
    return Table(open_store(str(folder)), SETTINGS | settings, resume=resume, rows=2)


def keys(folder: Path) -> list[str]:
    parts = sorted((folder / "table").glob("*.parquet"))
    return [key for part in parts for key in pq.read_table(part).column("key").to_pylist()]


def filled(folder: Path, *some: str) -> Path:
    table = open_table(folder)
    table.add(rows(*some))
    table.close()
    return folder


def change_state(folder: Path, **values: Any) -> None:
    state = json.loads((folder / "run.json").read_text()) | values
    (folder / "run.json").write_text(json.dumps(state))


def test_rows_are_written_in_files_of_so_many_each_beside_its_tar(tmp_path: Path) -> None:
    table = open_table(tmp_path)
    assert table.add(rows("a", "b", "c", "d", "e")).num_rows == 5
    assert keys(tmp_path) == ["a", "b", "c", "d"]
    table.close()
    assert keys(tmp_path) == ["a", "b", "c", "d", "e"]
    parts = {path.stem for path in (tmp_path / "table").iterdir()}
    assert len(parts) == 3
    assert {path.stem for path in (tmp_path / "pictures").iterdir()} == parts
    assert json.loads((tmp_path / "run.json").read_text())["alive"] is None


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
@pytest.mark.parametrize("written", [True, False])
@pytest.mark.parametrize("ending", [".tar", ".parquet"])
def test_rows_whose_writing_was_cut_short_are_written_once(
    ending: str, written: bool, error: type[BaseException], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stop signals come at any point, also when a file has just taken its name."""
    table = open_table(tmp_path)
    write = Store.write

    def cut_short(store: Store, content: bytes) -> None:
        due = store.name.endswith(ending)
        if written or not due:
            write(store, content)
        if due:
            monkeypatch.setattr(Store, "write", write)
            raise error

    monkeypatch.setattr(Store, "write", cut_short)
    with pytest.raises((RunError, KeyboardInterrupt)):
        table.add(rows("a", "b", "c"))
    table.flush()
    table.close()
    assert sorted(keys(tmp_path)) == ["a", "b", "c"]
    parts = {path.stem for path in (tmp_path / "table").iterdir()}
    assert {path.stem for path in (tmp_path / "pictures").iterdir()} == parts


def test_a_table_that_goes_on_has_each_key_once(tmp_path: Path) -> None:
    filled(tmp_path, "a", "b", "c")
    table = open_table(tmp_path, resume=True)
    assert table.done == {"a", "b", "c"}
    assert table.add(rows("c", "d", "d", "e")).column("key").to_pylist() == ["d", "e"]
    table.close()
    assert sorted(keys(tmp_path)) == ["a", "b", "c", "d", "e"]


def test_an_output_with_rows_is_only_added_to_on_request(tmp_path: Path) -> None:
    filled(tmp_path, "a")
    with pytest.raises(RunError, match="expected an empty place, found a table of an earlier run; --resume adds to it"):
        open_table(tmp_path)
    open_table(tmp_path, resume=True).close()


def test_a_run_that_came_to_nothing_leaves_the_output_free(tmp_path: Path) -> None:
    open_table(tmp_path).close()
    open_table(tmp_path, weights="others").close()
    open_table(tmp_path, resume=True).close()


@pytest.mark.parametrize(
    "other", [{"weights": "def"}, {"size": (96, 64)}, {"pack": "tree"}, {"new": None, "flip": True}]
)
def test_a_table_has_one_set_of_settings(other: dict[str, Any], tmp_path: Path) -> None:
    filled(tmp_path, "a")
    with pytest.raises(
        RunError, match=f"expected a table with {list(other)[-1]} .*; take the same settings, or another"
    ):
        open_table(tmp_path, resume=True, **other)
    open_table(tmp_path, resume=True).close()


@pytest.fixture
def other_process() -> Any:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield process.pid
    process.communicate(b"\n")


@pytest.mark.parametrize("resume", [False, True])
def test_a_run_that_lives_has_its_output_alone(resume: bool, other_process: int, tmp_path: Path) -> None:
    filled(tmp_path, "a")
    for host, pid in ((socket.gethostname(), other_process), ("elsewhere", 1)):
        change_state(tmp_path, host=host, pid=pid, alive=time.time() - 10)
        with pytest.raises(RunError, match=rf"expected no other run .* found one on {host} \(process {pid}\); wait"):
            open_table(tmp_path, resume=resume)


def test_a_run_that_is_dead_has_no_output(other_process: int, tmp_path: Path) -> None:
    filled(tmp_path, "a")
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    here, now = socket.gethostname(), time.time()
    # killed; silent on another machine; its number is another process's now, or none's; it has ended
    states = ((here, ended.pid, now), ("elsewhere", 1, now - 100), (here, other_process, now - 100), (here, 2**70, now))
    for host, pid, alive in states:
        change_state(tmp_path, host=host, pid=pid, alive=alive)
        open_table(tmp_path, resume=True).close()
    change_state(tmp_path, host="elsewhere", pid=1, alive=None)
    open_table(tmp_path, resume=True).close()


def test_a_run_whose_place_was_taken_writes_nothing_more(tmp_path: Path) -> None:
    first = open_table(tmp_path)
    first.add(rows("a", "b", "c"))
    change_state(tmp_path, alive=1.0)  # it was silent for long
    second = open_table(tmp_path, resume=True)
    assert second.done == {"a", "b"}
    with pytest.raises(RunError, match="which has taken the place of this one"):
        first.add(rows("d"))
    with pytest.raises(RunError, match="which has taken the place of this one"):
        first.close()
    second.add(rows("c", "d"))
    assert json.loads((tmp_path / "run.json").read_text())["run"] == second.run
    second.close()
    assert sorted(keys(tmp_path)) == ["a", "b", "c", "d"]


def test_a_run_says_that_it_lives_until_another_takes_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BEAT", 0.02)
    table = open_table(tmp_path)
    began = time.time()
    while json.loads((tmp_path / "run.json").read_text())["alive"] < began:
        assert time.time() - began < 5
        time.sleep(0.01)
    change_state(tmp_path, run="another", alive=2.0)
    time.sleep(0.1)
    assert json.loads((tmp_path / "run.json").read_text())["alive"] == 2.0
    table.close()
    assert json.loads((tmp_path / "run.json").read_text())["run"] == "another"


@pytest.mark.parametrize(
    "damage", [lambda content: content[:-20], lambda content: b"", lambda content: content[:2] * 9]
)
def test_a_torn_file_is_done_anew(damage: Any, tmp_path: Path) -> None:
    filled(tmp_path, "a", "b", "c")
    first, second = sorted((tmp_path / "table").iterdir())
    first.write_bytes(damage(first.read_bytes()))
    table = open_table(tmp_path, resume=True)
    assert table.done == {"c"}
    assert table.remarks == [f"{first}: torn; its photos are done anew"]
    table.add(rows("a", "b"))
    table.close()
    assert sorted(keys(tmp_path)) == ["a", "b", "c"]
    assert {path.stem for path in (tmp_path / "pictures").iterdir()} == {
        path.stem for path in (tmp_path / "table").iterdir()
    }
    assert second.exists()


@pytest.mark.parametrize("name", ["mine.parquet", "part-1.parquet"])
def test_files_of_others_are_told_and_never_deleted(name: str, tmp_path: Path) -> None:
    filled(tmp_path, "a", "b")
    other = tmp_path / "table" / name
    for make in (lambda: other.write_text("mine"), lambda: pq.write_table(pa.table({"x": [1]}), other)):
        make()
        with pytest.raises(RunError, match=f"{name}: expected a table of infer_batch.py, found another; move it"):
            open_table(tmp_path, resume=True)
        assert other.exists()
    other.unlink()
    (tmp_path / "pictures" / "mine.tar").write_text("mine")
    open_table(tmp_path, resume=True).close()
    assert (tmp_path / "pictures" / "mine.tar").read_text() == "mine"


def test_pictures_whose_rows_were_never_written_go(tmp_path: Path) -> None:
    filled(tmp_path, "a", "b")
    lost = tmp_path / "pictures" / "part-0123456789ab-00000.tar"
    lost.write_bytes(b"")
    open_table(tmp_path, resume=True).close()
    assert not lost.exists()
    assert len(list((tmp_path / "pictures").iterdir())) == 1


def test_a_file_that_cannot_be_read_now_is_not_taken_for_torn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that fails deletes nothing."""
    filled(tmp_path, "a", "b")
    with monkeypatch.context() as failing:

        def fail(self: Store, *args: Any, **kwargs: Any) -> Any:
            raise OSError("AWS Error INTERNAL_FAILURE")

        failing.setattr(Store, "opened", fail)
        read = Store.read
        failing.setattr(Store, "read", lambda store: fail(store) if store.name.endswith("parquet") else read(store))
        with pytest.raises(RunError, match=r"found one that cannot be \(AWS Error INTERNAL_FAILURE\)"):
            open_table(tmp_path, resume=True)
    assert keys(tmp_path) == ["a", "b"]
    open_table(tmp_path, resume=True).close()


@pytest.mark.parametrize(
    "state",
    [
        "", "{", "[]", '{"settings": 1}', '{"settings": {}}', "[" * 10**5, "\0" * 9,
        '{"settings": {}, "run": "x", "host": "h", "pid": 1, "alive": "soon"}',
    ],
)  # fmt: skip
def test_a_damaged_or_foreign_file_of_the_run_is_told(state: str, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(state)
    for resume in (False, True):
        with pytest.raises(RunError, match=r"run\.json: expected the file that infer_batch\.py writes, found another"):
            open_table(tmp_path, resume=resume)
    assert (tmp_path / "run.json").read_text() == state


def test_a_table_without_its_run_is_told(tmp_path: Path) -> None:
    filled(tmp_path, "a")
    (tmp_path / "run.json").unlink()
    with pytest.raises(RunError, match=r"expected run\.json beside table"):
        open_table(tmp_path, resume=True)
    with pytest.raises(RunError, match="expected an empty place"):
        open_table(tmp_path)
