"""Annotations that are packed, or text of another kind: they are named, and what is said to do about them works."""

import bz2
import gzip
import io
import lzma
import re
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest
from conftest import PhotoFolder

from cloth_segmentation.errors import DataError
from data.labels import scan

CSV = "ImageId,EncodedPixels,Height,Width,ClassId\nb\u00e9.jpg,1 2,9,5,6\n"


def zipped(names: list[str]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, CSV)
    return file.getvalue()


PACKED = {
    "train.csv.zip": (zipped(["train.csv"]), "a zip archive", "train.csv"),
    "train.csv.gz": (gzip.compress(CSV.encode()), "a gzip file", "train.csv"),
    "train.csv.bz2": (bz2.compress(CSV.encode()), "a bzip2 file", "train.csv"),
    "train.csv.xz": (lzma.compress(CSV.encode()), "an xz file", "train.csv"),
    "b o m.csv": (CSV.encode("utf-16"), "text in UTF-16", "utf8.csv"),
    "le.csv": (CSV.encode("utf-16-le"), "text in UTF-16", "utf8.csv"),
    "be.csv": ("\ufeff".encode("utf-16-be") + CSV.encode("utf-16-be"), "text in UTF-16", "utf8.csv"),
    "mac.csv": (CSV.replace("\n", "\r").encode(), "lines that end in a carriage return alone", "new.csv"),
}


@pytest.mark.parametrize("name", PACKED)
def test_what_is_said_to_do_gives_a_csv(name: str, tmp_path: Path) -> None:
    content, kind, made = PACKED[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(
        DataError, match=rf"{name}: expected labels as CSV or JSON, in plain text, found {kind}; "
    ) as error:
        scan(tmp_path / name)
    command = re.search(r" \((\w.*)\)", str(error.value)).group(1)
    if shutil.which(command.split()[0]) is None:
        pytest.skip(f"there is no {command.split()[0]} here")
    subprocess.run(command, shell=True, cwd=tmp_path, check=True, capture_output=True)
    index, faults, *_ = scan(tmp_path / made)
    assert not faults
    assert (str(index.names[0]), index.size(0)) == ("b\u00e9.jpg", (5, 9))
    assert index.instances(0) == [(2, "line 2", b"1 2")]


@pytest.mark.parametrize("name", [name for name in PACKED if name.startswith("train.csv.")])
def test_what_lies_packed_beside_a_missing_csv_is_named(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(PACKED[name][0])
    with pytest.raises(
        DataError, match=rf"train.csv: expected .*, found no such file, but .*{name}: {PACKED[name][1]}"
    ):
        scan(tmp_path / "train.csv")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            CSV.replace(",", ";").encode("utf-8-sig"),
            "columns separated by semicolons; save it with commas; spreadsheets cut",
        ),
        (CSV.replace(",", "\t").replace("\n", "\r\n").encode(), "columns separated by tabs"),
        (b'"ImageId";"EncodedPixels";"Height";"Width";"ClassId"\n', "columns separated by semicolons"),
        (zipped(["[Content_Types].xml", "xl/workbook.xml"]), "a spreadsheet; save it as CSV"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), "a spreadsheet; save it as CSV"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "a Git LFS pointer"),
    ],
)
def test_other_files_are_named(content: bytes, words: str, photo_folder: PhotoFolder) -> None:
    photo_folder.csv.write_bytes(content)
    with pytest.raises(DataError, match=f"train.csv: expected labels as CSV or JSON, in plain text, found {words}"):
        scan(photo_folder.csv)
