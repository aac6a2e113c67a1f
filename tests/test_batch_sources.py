"""Photos of batches: what is in folders, tars and Parquet files, and under which keys. No Ray."""

import gzip
import io
import tarfile
from pathlib import Path
from typing import Any

import pytest

from cloth_segmentation.errors import DataError, Error, RunError

pytest.importorskip("pyarrow")

import pyarrow as pa
import pyarrow.parquet as pq
from fsspec import AbstractFileSystem
from pyarrow.fs import FSSpecHandler, PyFileSystem

from cloth_segmentation.batch import stores
from cloth_segmentation.batch.sources import Done, Plan, find_photos
from cloth_segmentation.batch.stores import open_store, safe_path


def plan(place: Path, done: Done | None = None, **more: Any) -> Plan:
    settings: dict[str, Any] = {"column": "", "key_column": "", "size": 2, "output": None} | more
    return find_photos(open_store(str(place)), done=done or Done(), **settings)


def found(place: Path, done: Done | None = None, **more: Any) -> dict[str, Any]:
    """{key: the content of the photo, or what is wrong with it}."""
    photos: dict[str, Any] = {}
    for unit in plan(place, done, **more).units:
        for key, get in unit.photos():
            assert key not in photos
            try:
                source = get()
                photos[key] = source.read_bytes() if isinstance(source, Path) else source
            except (DataError, OSError) as error:
                photos[key] = f"{type(error).__name__}: {error}"
    return photos


def write_tar(path: Path, members: list[tuple[str, bytes]], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def write_table(path: Path, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), path, row_group_size=2)
    return path


def test_photos_of_a_folder_are_called_by_their_paths(tmp_path: Path) -> None:
    for name in ("b.png", "a/c.jpg", "a/d.txt", ".hidden/e.png", "out/table/f.png", "odd\udcff.png"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode("utf-8", "surrogateescape"))
    (tmp_path / "link.png").symlink_to("nowhere")
    photos = found(tmp_path, output=open_store(str(tmp_path / "out")))
    assert photos.pop("link.png") == "DataError: expected a photo, found a link that leads nowhere"
    assert photos == {"a/c.jpg": b"a/c.jpg", "b.png": b"b.png", r"odd\udcff.png": b"odd\xff.png"}
    assert list(found(tmp_path, Done({"b.png", "a/c.jpg", "link.png"}), output=open_store(str(tmp_path / "out")))) == [
        r"odd\udcff.png"
    ]


@pytest.mark.parametrize(("done", "left"), [([], 3), (["a.png"], 2), (["other.png", "more.png"], 3), (["link.png"], 2)])
def test_photos_that_are_left_are_counted(done: list[str], left: int, tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(b"1")
    (tmp_path / "link.png").symlink_to("nowhere")
    assert plan(tmp_path, Done(done)).photos == left


def test_one_photo_is_called_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(b"1")
    assert found(tmp_path / "one") == {"one": b"1"}
    assert found(tmp_path / "one", Done({"one"})) == {}


@pytest.mark.parametrize(("name", "mode"), [("a.tar", "w"), ("a.tar.gz", "w:gz"), ("a.tgz", "w:gz"), ("A.TAR", "w:xz")])
def test_photos_of_a_tar_are_called_by_it_and_their_paths(name: str, mode: str, tmp_path: Path) -> None:
    members = [("x/1.jpg", b"1"), ("x/1.json", b"{}"), ("x/._1.jpg", b"no"), ("./2.PNG", b"2")]
    write_tar(tmp_path / name, members, mode)
    photos = {f"{name}/x/1.jpg": b"1", f"{name}/2.PNG": b"2"}
    assert found(tmp_path / name) == photos
    assert found(tmp_path) == photos
    assert found(tmp_path, Done({f"{name}/x/1.jpg"})) == {f"{name}/2.PNG": b"2"}
    assert found(tmp_path, Done(photos)) == {}


def test_hostile_names_in_a_tar_are_keys_and_no_paths(tmp_path: Path) -> None:
    names = ["../../up.png", "/etc/root.png", "a/../../b.png", "new\nline.png", f"{'long' * 80}.png"]
    tar = write_tar(tmp_path / "t.tar", [(name, b"x") for name in names])
    photos = found(tar)
    assert [content for content in photos.values() if content != b"x"] == []
    assert len(photos) == len(names)
    assert [path for key in photos if (path := safe_path(key))] == []
    assert not (tmp_path.parent / "up.png").exists()


def test_what_is_no_file_in_a_tar_is_told(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "t.tar", "w") as tar:
        for name, kind in (
            ("soft.png", tarfile.SYMTYPE),
            ("hard.png", tarfile.LNKTYPE),
            ("device.png", tarfile.CHRTYPE),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/passwd"
            tar.addfile(member)
        folder = tarfile.TarInfo("folder.png")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
    photos = found(tmp_path / "t.tar")
    assert set(photos) == {"t.tar/soft.png", "t.tar/hard.png", "t.tar/device.png"}
    assert set(photos.values()) == {"DataError: expected a photo, found a link or device in a tar"}


def test_the_first_of_two_photos_of_one_name_in_a_tar_is_kept_and_the_other_told(tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "t.tar", [("a.png", b"1"), ("b.png", b"2"), ("./a.png", b"3"), ("a.png", b"4")])
    photos = found(tar)
    told = "DataError: expected a name of its own, found that of an earlier photo"
    assert photos == {"t.tar/a.png": b"1", "t.tar/b.png": b"2", "t.tar/a.png 2": told, "t.tar/a.png 3": told}
    assert found(tar, Done(photos)) == {}
    assert list(found(tar, Done({"t.tar/a.png", "t.tar/a.png 2"}))) == ["t.tar/b.png", "t.tar/a.png 3"]


def torn(content: bytes) -> bytes:
    return content[: len(content) * 2 // 5]


@pytest.mark.parametrize(
    "damage",
    [
        torn,
        lambda content: torn(gzip.compress(content, 0)),
        lambda content: content[:2560] + b"junk" * 128 + content[3072:],
        lambda content: content[: 2 * 2560],
        lambda content: b"no tar",
        lambda content: b"",
        lambda content: b"\x1f\x8b" + content,
    ],
)
def test_a_damaged_tar_is_told_and_read_again(damage: Any, tmp_path: Path) -> None:
    """Rows come in any order: that of the tar itself does not say that all before it are there."""
    tar = write_tar(tmp_path / "t.tar", [(f"{number}.png", bytes(2048)) for number in range(10)])
    tar.write_bytes(damage(tar.read_bytes()))
    photos = found(tar)
    told = photos.pop("t.tar")
    assert told.startswith("DataError: expected a ")
    assert "tar" in told
    assert found(tar, Done({"t.tar"})) == photos
    assert found(tar, Done({"t.tar", *photos})) == {}


def test_a_tar_without_photos_is_told(tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "t.tar", [("a.txt", b"1")])
    assert "found no file in it that has the ending of one" in found(tar)["t.tar"]


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), pa.dictionary(pa.int32(), pa.binary())])
def test_photos_of_a_parquet_file_have_its_name_and_their_rows(kind: Any, tmp_path: Path) -> None:
    table = write_table(tmp_path / "t.parquet", image=pa.array([b"1", b"2", None, b"4", b"5"]).cast(kind))
    photos = found(table)
    assert photos.pop("t.parquet/2") == "DataError: expected the bytes of a photo, found null"
    assert photos == {"t.parquet/0": b"1", "t.parquet/1": b"2", "t.parquet/3": b"4", "t.parquet/4": b"5"}
    assert list(found(table, Done(photos))) == ["t.parquet/2"]
    assert plan(table).photos == 5


def test_pictures_of_hugging_face_are_photos(tmp_path: Path) -> None:
    pictures = [{"bytes": b"1", "path": "a.jpg"}, {"bytes": None, "path": "b.jpg"}, None]
    photos = found(write_table(tmp_path / "t.parquet", image=pictures, label=[1, 2, 3]))
    told = "DataError: expected the bytes of a photo, found null"
    assert photos == {"t.parquet/0": b"1", "t.parquet/1": told, "t.parquet/2": told}


@pytest.mark.parametrize("keys", [["x", "y", "x", None, "x"], [7, 8, 7, None, 7]])
def test_the_first_of_two_rows_of_one_key_is_kept_and_the_other_told(keys: list[Any], tmp_path: Path) -> None:
    table = write_table(tmp_path / "t.parquet", image=[b"1", b"2", b"3", b"4", b"5"], sku=keys)
    photos = found(table, key_column="sku")
    told = f"DataError: expected a name of its own, found '{keys[0]}', which an earlier row has"
    assert photos == {
        str(keys[0]): b"1", str(keys[1]): b"2", "t.parquet/2": told, "t.parquet/3": b"4", "t.parquet/4": told,
    }  # fmt: skip
    assert found(table, Done(photos), key_column="sku") == {}
    assert set(found(table, Done({str(keys[0])}), key_column="sku")) == set(photos) - {str(keys[0])}


def test_keys_are_of_their_own_among_all_files_of_a_folder(tmp_path: Path) -> None:
    write_table(tmp_path / "a.parquet", image=[b"1"], sku=["x"])
    write_table(tmp_path / "b.parquet", image=[b"2"], sku=["x"])
    photos = found(tmp_path, key_column="sku")
    assert photos["x"] == b"1"
    assert "which an earlier row has" in photos["b.parquet/0"]


def test_addresses_are_found_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/a b.png").write_bytes(b"1")
    whole = str(tmp_path / "photos/a b.png")
    names = ["photos/a b.png", whole, f"file://{whole}", "nowhere.png", "https://h/a.png", None, "", "foo://x/a.png"]
    table = write_table(tmp_path / "t.parquet", photo=names)
    monkeypatch.chdir("/")
    photos = found(table)
    assert [photos.pop(str(name)) for name in names[:3]] == [b"1"] * 3
    assert photos.pop("nowhere.png").startswith("FileNotFoundError")
    assert "found a web address, which is not fetched" in photos.pop("https://h/a.png")
    assert "found one that cannot be used" in photos.pop("foo://x/a.png")
    assert list(photos) == ["t.parquet/5", ""] or list(photos) == ["", "t.parquet/5"]
    assert set(photos.values()) == {"DataError: expected the address of a photo, found none"}


@pytest.mark.parametrize("address", ["a\0b.png", "/a/\0", "file:///a\0.png"])
def test_an_address_with_a_null_character_is_a_problem_of_its_photo(address: str, tmp_path: Path) -> None:
    (tmp_path / "b.png").write_bytes(b"2")
    photos = found(write_table(tmp_path / "t.parquet", photo=[address, "b.png"]))
    assert photos[address].startswith("DataError: expected the address of a photo, found one with a null character")
    assert photos["b.png"] == b"2"


def test_damage_within_a_parquet_file_is_told_of_its_rows(tmp_path: Path) -> None:
    table = write_table(tmp_path / "t.parquet", image=[bytes([number]) * 4000 for number in range(6)])
    content = bytearray(table.read_bytes())
    middle = pq.ParquetFile(table).metadata.row_group(1).column(0)
    content[middle.dictionary_page_offset : middle.dictionary_page_offset + 40] = b"\xff" * 40
    table.write_bytes(content)
    photos = found(table)
    assert [photos[f"t.parquet/{number}"] for number in (0, 1, 4, 5)] == [bytes([n]) * 4000 for n in (0, 1, 4, 5)]
    assert all("found damage" in photos[f"t.parquet/{number}"] for number in (2, 3))


def test_damage_to_keys_is_an_error(tmp_path: Path) -> None:
    table = write_table(tmp_path / "t.parquet", image=[b"1", b"2", b"3"], sku=["aaaaaaaa", "bbbbbbbb", "cccccccc"])
    content = bytearray(table.read_bytes())
    keys = pq.ParquetFile(table).metadata.row_group(1).column(1)
    content[keys.dictionary_page_offset : keys.dictionary_page_offset + 16] = b"\xff" * 16
    table.write_bytes(content)
    with pytest.raises(RunError, match="expected a Parquet file, found none that can be read"):
        found(table, key_column="sku")


BAD_TABLES: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "no such column": ({"image": [b"1"]}, {"column": "photo"}, "expected a column 'photo', found image; --column"),
    "no such keys": ({"image": [b"1"]}, {"key_column": "sku"}, "expected a column 'sku', found image"),
    "two": ({"a": [b"1"], "b": [b"2"]}, {}, "expected one column of photos, found a, b; --column names the right one"),
    "two of texts": ({"a": ["1"], "b": ["2"]}, {}, "expected one column of addresses, found a, b"),
    "numbers": (
        {"a": [1.5]},
        {},
        r"expected a column of photos \(binary\) or of addresses \(string\), found a \(double",
    ),
    "asked for numbers": ({"a": [1], "b": [b"1"]}, {"column": "a"}, "in column 'a', found int64"),
    "keys of fractions": (
        {"a": [b"1"], "b": [1.5]},
        {"key_column": "b"},
        "expected names .* in column 'b', found double",
    ),
    "keys of bytes": ({"a": [b"1"], "b": [b"1"]}, {"column": "a", "key_column": "b"}, "expected names .* found binary"),
    "no rows": ({"a": pa.array([], pa.binary())}, {}, "expected photos, found a table without rows"),
    "no columns": ({}, {}, "found none"),
}


@pytest.mark.parametrize("name", BAD_TABLES)
def test_a_parquet_file_that_does_not_fit_is_told(name: str, tmp_path: Path) -> None:
    columns, settings, words = BAD_TABLES[name]
    table = write_table(tmp_path / "t.parquet", **columns)
    for place in (table, tmp_path):
        with pytest.raises(Error, match=words):
            plan(place, **settings)


@pytest.mark.parametrize("damage", [torn, lambda content: b"", lambda content: b"PAR1" + b"\xff" * 99 + b"PAR1"])
def test_a_torn_parquet_file_is_told_at_once(damage: Any, tmp_path: Path) -> None:
    table = write_table(tmp_path / "t.parquet", image=[b"1"])
    table.write_bytes(damage(table.read_bytes()))
    with pytest.raises(RunError, match=r"t\.parquet: expected a Parquet file, found none that can be read"):
        plan(table)


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("http://host/a", "found a web address, which is not fetched"),
        ("https://KEY:SECRET@host/a?token=SECRET", "https://host: .*found a web address"),
        ("foo://x/a", "foo://x: .*found one that cannot be used"),
        ("dir:///tmp", "found one that cannot be used"),
        ("s3:///a", "expected the name of a bucket after s3://, found none"),
        ("s3:/shop/a", "expected an address with two slashes, as in s3://, found one"),
        ("s3://KEY:SECRET@shop/a?secret=SECRET", "s3://shop: .*Unexpected query parameter"),
        ("s3://sh op/a?SECRET", "s3://sh op: "),
        ("az://box/a", "pip install what it names, on all machines"),
        ("memory://a/b", "expected a place that all processes share, found the memory of one"),
        ("file://a/b", "expected file:/// and a whole path"),
    ],
)
def test_addresses_of_no_use_are_told_without_their_secrets(address: str, words: str) -> None:
    with pytest.raises(RunError, match=words) as told:
        open_store(address)
    assert "SECRET" not in str(told.value)


@pytest.mark.parametrize(
    ("key", "path"),
    [
        ("a/b.jpg", "a/b.jpg"), ("s3://shop/a.jpg", "shop/a.jpg"), ("/data/a.jpg", "data/a.jpg"),
        ("ä b.jpg", "ä b.jpg"), ("a//b.jpg", None),
        ("../a", None), ("a/..", None), ("", None), ("a\0b", None), ("é" * 101, None),
    ],
)  # fmt: skip
def test_a_key_is_a_path_where_it_is_safe(key: str, path: str | None) -> None:
    assert safe_path(key) == path


@pytest.mark.parametrize(("status", "tries"), [(403, 1), (404, 1), (408, 3), (429, 3), (503, 3)])
def test_what_a_server_refuses_for_now_is_tried_again(status: int, tries: int, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    class Failing(AbstractFileSystem):  # type: ignore[misc]
        def isfile(self, path: str) -> bool:
            return True

        def _open(self, path: str, mode: str = "rb", **more: Any) -> Any:
            asked.append(path)
            raise OSError(f"AWS Error UNKNOWN: HTTP status {status}")

    monkeypatch.setattr(stores, "RETRIES", (0.0, 0.0))
    store = stores.Store(PyFileSystem(FSSpecHandler(Failing())), "shop/a.jpg", "s3://shop/a.jpg")
    with pytest.raises(OSError, match=f"HTTP status {status}"):
        store.read()
    assert len(asked) == tries
