"""Very many photos: what infer.py finds and draws, as a table and pictures, by Ray."""

import csv
import json
import os
import pickle
import re
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from conftest import ROOT, python, run
from PIL import Image

from infer import Segmenter

pytest.importorskip("ray")
pytest.importorskip("pyarrow")

import pyarrow as pa
import pyarrow.parquet as pq

from cloth_segmentation.batch.engine import connected
from cloth_segmentation.batch.sources import Done, Entry, Files, Unit, find_photos
from cloth_segmentation.batch.stages import DRAWN, UNITS, Draw, Network, Read
from cloth_segmentation.batch.stores import Store, open_store
from cloth_segmentation.batch.table import CLASS, ROW, WEIGHTS
from cloth_segmentation.command.outputs import Drawing
from cloth_segmentation.errors import RunError

BUNDLED = ROOT / "trained_checkpoint" / "cloth_segm_u2netp.onnx"

EXIF_ORIENTATION = 0x112


def make_photos(folder: Path) -> list[str]:
    """Small photos of all that is odd, and two that are none; their keys."""
    (folder / "sub").mkdir(parents=True)
    photos = {}
    for name in ("grace_hopper.jpg", "skirt.jpg", "t_shirt.jpg", "dress.jpg"):
        with Image.open(ROOT / "input_images" / name) as picture:
            photos[name] = picture.convert("RGB").resize((120, 160))
    photos["grace_hopper.jpg"].save(folder / "plain.jpg")
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = 6
    photos["skirt.jpg"].rotate(90, expand=True).save(folder / "sub" / "turned.jpeg", exif=exif)
    clear = Image.new("L", (120, 160), 255)
    clear.paste(0, (0, 0, 60, 160))
    photos["t_shirt.jpg"].putalpha(clear)
    photos["t_shirt.jpg"].save(folder / "clear ü.png")
    photos["dress.jpg"].save(folder / "moving.gif", save_all=True, append_images=[photos["skirt.jpg"]])
    (folder / "bad.jpg").write_bytes(b"no photo")
    (folder / "sub" / "cut.png").write_bytes((folder / "clear ü.png").read_bytes()[:2000])
    return ["bad.jpg", "clear ü.png", "moving.gif", "plain.jpg", "sub/cut.png", "sub/turned.jpeg"]


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of a Ray cluster of this machine alone."""
    from ray.cluster_utils import Cluster

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    folder = tempfile.mkdtemp(prefix="ray")  # pytest's own folders have names too long for sockets
    started = Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": 2,
            "include_dashboard": False,
            "object_store_memory": 100 * 2**20,
            "temp_dir": folder,
        },
    )
    try:
        yield started.address
    finally:
        started.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


class Both(NamedTuple):
    """What infer.py and infer_batch.py make of the same photos."""

    keys: list[str]
    json: dict[str, dict[str, Any]]  # key -> content of the JSON file, without the photo
    problems: dict[str, str]  # key -> reason
    pictures: dict[str, bytes]  # by the names that infer_batch.py gives them
    messages: str
    rows: dict[str, dict[str, Any]]  # key -> row of the table
    flags: list[object]  # of infer_batch.py
    output: Path
    stdout: str
    stderr: str


FLAGS = {
    "tree": ["--save=mask,overlay,cutout,classes"],
    "tar": ["--save=mask,cutout", "--only=upper,lower", "--crop", "--flip", "--min_area=0.01"],
}


@pytest.fixture(scope="module", params=[pytest.param(pack, marks=pytest.mark.long) for pack in FLAGS])
def both(cluster: str, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Both:
    folder, pack = tmp_path_factory.mktemp(request.param), request.param
    photos, masks, output, report = (folder / name for name in ("photos", "masks", "output", "report.csv"))
    keys = make_photos(photos)
    flags = [f"--checkpoint={BUNDLED}", f"--input={photos}"]
    saved, *others = FLAGS[pack]

    plain = python("infer.py", *flags, f"--output={masks}", f"--report={report}", f"{saved},json", *others)
    assert plain.returncode == 1, plain.stderr
    more = [*flags, f"--output={output}", f"--pack={pack}", *FLAGS[pack]]
    batch = python("infer_batch.py", *more, f"--address={cluster}")
    assert batch.returncode == 1, batch.stderr

    contents, pictures = {}, {}
    for path in (path for path in masks.rglob("*") if path.is_file()):
        name = path.relative_to(masks).as_posix()
        [key] = [key for key in keys if name.startswith(Path(key).with_suffix("").as_posix())]
        ending = name.removeprefix(Path(key).with_suffix("").as_posix())
        if ending == ".json":
            contents[key] = json.loads(path.read_text())
            assert contents[key].pop("photo") == str(photos / key)
        else:
            kinds = {"_cutout": "cutout", "_mask": "classes", "_overlay": "overlay"}
            kind = next((kind for begin, kind in kinds.items() if ending.startswith(begin)), "mask")
            pictures[f"{kind}/{key}{ending}"] = path.read_bytes()
    with report.open(encoding="utf-8", newline="") as file:
        problems = {Path(row["photo"]).relative_to(photos).as_posix(): row["problem"] for row in csv.DictReader(file)}
    rows = {row["key"]: row for row in pq.read_table(output / "table").to_pylist()}
    return Both(keys, contents, problems, pictures, plain.stderr, rows, [*more], output, batch.stdout, batch.stderr)


def test_rows_are_the_json_of_infer_py(both: Both) -> None:
    assert sorted(both.rows) == both.keys
    assert set(both.problems) == {"bad.jpg", "sub/cut.png"}
    for key, content in both.json.items():
        row = both.rows[key]
        assert {name: row[name] for name in content} == content
        assert set(row) - set(content) == {"key", "problem", "notes", "software"}
        assert row["problem"] is None
        for note in row["notes"]:
            assert f"{key}: {note}" in both.messages
    assert both.rows["moving.gif"]["notes"] == ["expected one picture, found several; the mask is that of the first"]
    assert any(entry["pixels"] for content in both.json.values() for entry in content["classes"])
    turned = both.rows["sub/turned.jpeg"]
    assert (turned["width"], turned["height"]) == (120, 160)


def test_problems_are_those_of_infer_py(both: Both) -> None:
    assert {key: row["problem"] for key, row in both.rows.items() if row["problem"]} == both.problems
    for key in both.problems:
        row = both.rows[key]
        assert row["version"] == 1
        assert row["weights"] == both.rows["plain.jpg"]["weights"]
        assert [row[name] for name in ("width", "height", "classes")] == [None, None, None]
        assert f"Failed: {key}: {both.problems[key]}\n" in both.stderr


def test_pictures_are_those_of_infer_py_byte_for_byte(both: Both) -> None:
    place = both.output / "pictures"
    files = {path.relative_to(place).as_posix(): path for path in place.rglob("*") if path.is_file()}
    if len(files) == 1:
        [archive] = files.values()
        [part] = (both.output / "table").iterdir()
        assert archive.name == part.with_suffix(".tar").name
        with tarfile.open(archive) as tar:
            found = {member.name: getattr(tar.extractfile(member), "read", bytes)() for member in tar}
    else:
        found = {name: path.read_bytes() for name, path in files.items()}
    assert any(name.startswith("cutout/plain.jpg_cutout_upper") for name in found)
    assert {name: len(content) for name, content in found.items()} == {
        name: len(content) for name, content in both.pictures.items()
    }
    assert found == both.pictures


def test_the_bar_and_the_summary_count_what_was_done(both: Both) -> None:
    assert re.search(r"6/6 \[.*photo.*failed=2\]", both.stderr)
    *_, last = both.stdout.splitlines()
    assert last == f"6 photos in {both.output / 'table'}, 2 failed"
    for stage in ("read", "network", "draw"):
        assert re.search(rf"^{stage} +\d+\.\d +\d+\.\d +\d+\.\d\d$", both.stdout, re.MULTILINE)


def test_where_nothing_is_left_ray_is_not_called(both: Both) -> None:
    done = python("infer_batch.py", *both.flags, "--resume", "--address=127.0.0.1:1")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith(f"Nothing to do: all photos have a row in {both.output / 'table'} already\n")


def test_ray_is_not_heard(both: Both) -> None:
    lines = [line.strip() for line in re.split(r"[\r\n]+", both.stderr)]
    assert sum(line.startswith("Failed: ") for line in lines) == 2
    assert not [line for line in lines if line and not re.match(r"Failed: | *\d+%\|", line)]
    assert "ray" not in both.stdout.lower()


@pytest.mark.parametrize("flags", [["--threads=99"], ["--gpus=1", "--engine=onnx"], ["--gpus=0.5", "--engine=onnx"]])
def test_what_no_machine_has_is_not_waited_for(flags: list[str], cluster: str, tmp_path: Path) -> None:
    shutil.copy(ROOT / "input_images" / "skirt.jpg", tmp_path)
    done = python(
        "infer_batch.py", f"--input={tmp_path}", f"--output={tmp_path}/out", f"--checkpoint={BUNDLED}",
        f"--address={cluster}", *flags,
    )  # fmt: skip
    assert done.returncode == 1
    said = flags[0].replace("=", " ")
    assert re.search(
        rf"infer_batch\.py: {said}: expected a machine with that many (CPU|GPU)s, found at most [02];", done.stderr
    )
    assert "Traceback" not in done.stderr


def test_pandas_reads_the_table_as_the_pages_say(both: Both, tmp_path: Path) -> None:
    """And the photos that failed run again under their keys."""
    photos = tmp_path / "photos"
    make_photos(photos)
    [in_short] = [code for code in blocks("README.md") if "read_parquet" in code]
    reading, garments, failed = [code for code in blocks("docs/scale.md") if "plan(" not in code]
    code = "\n".join((in_short, reading, garments, failed)).replace("table/table", str(both.output / "table"))
    done = run(sys.executable, "-c", code.replace("s3://shop/photos", str(photos)), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    pixels = {(key, entry["name"]): entry["share"] for key, row in both.rows.items() for entry in row["classes"] or ()}
    for key, name in [each for each, share in pixels.items() if share > 0]:
        assert re.search(rf"^\d+ +{re.escape(key)} +{name}", done.stdout, re.MULTILINE)
    plan = find_photos(open_store(str(tmp_path / "again.parquet")), "photo", "key", 32, Done())
    left = dict(entry for unit in plan.units for entry in unit.entries)
    assert left == {key: str(photos / key) for key in both.problems}


@pytest.mark.parametrize(
    ("address", "variable"), [("ray://head:10001", ""), ("ray://127.0.0.1:1", ""), ("", "ray://head:10001")]
)
def test_addresses_for_programs_outside_a_cluster_are_refused(
    address: str, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", variable)
    with (
        pytest.raises(RunError, match=f"^{address or variable}: expected the address of a cluster's head"),
        connected(address),
    ):
        pass


# What follows needs no Ray.


def blocks(page: str) -> list[str]:
    """The examples in Python of a page."""
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)


def test_the_cluster_file_of_the_page_is_one_that_ray_takes() -> None:
    import jsonschema
    import ray
    import yaml

    [text] = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "scale.md").read_text(), re.DOTALL)
    schema = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text())
    jsonschema.validate(yaml.safe_load(text), schema)


@pytest.fixture(scope="module")
def segment() -> Segmenter:
    return Segmenter.load(BUNDLED, device="cpu")


class Contents:
    """Photos as bytes, as they come from buckets, tables and archives."""

    def __init__(self, photos: dict[str, bytes]) -> None:
        self.contents = photos

    def photos(self) -> Iterator[Entry]:
        for key, content in self.contents.items():
            yield key, lambda content=content: content


def pass_through(
    segment: Segmenter, units: Sequence[Unit], *outputs: str, tree: Store | None = None, batch_size: int = 1
) -> list[dict[str, Any]]:
    """Rows that the stages make of units."""
    read = Read(segment, keep=bool({"overlay", "cutout"} & set(outputs)))
    network = Network(segment, BUNDLED.read_bytes, batch_size, 1)
    draw = Draw(segment, Drawing(), outputs, tree)
    table = pa.table({"unit": [pickle.dumps(unit) for unit in units]}, schema=UNITS)
    seen = pa.concat_tables(read(table))
    logits = pa.concat_tables(network(seen))
    drawn = pa.concat_tables(draw(logits))
    assert drawn.schema == DRAWN
    return drawn.to_pylist()


def test_a_row_has_what_json_has(segment: Segmenter) -> None:
    content = segment(ROOT / "input_images" / "skirt.jpg").to_dict()
    assert set(ROW.names) - {"key", "problem", "notes", "software"} == set(content) - {"photo"}
    assert {field.name for field in WEIGHTS} == set(content["weights"])
    for entry in content["classes"]:
        assert {field.name for field in CLASS} == set(entry)
        assert {field.name for field in CLASS.field("segmentation").type} == set(entry["segmentation"])


@pytest.mark.parametrize("batch_size", [1, 3])
def test_stages_give_what_the_library_gives(segment: Segmenter, tmp_path: Path, batch_size: int) -> None:
    keys = make_photos(tmp_path)
    as_files: Unit = Files(open_store(str(tmp_path)), tuple(keys))
    as_bytes: Unit = Contents({f"s3://bucket/{key}": (tmp_path / key).read_bytes() for key in keys})
    rows = {row["key"]: row for row in pass_through(segment, [as_files, as_bytes], "mask", batch_size=batch_size)}
    assert sorted(rows) == sorted(keys + [f"s3://bucket/{key}" for key in keys])
    for key in keys:
        row, other = rows[key], rows[f"s3://bucket/{key}"]
        assert row["problem"] == other["problem"]
        assert row["notes"] == other["notes"]
        assert row["classes"] == other["classes"]
        assert [each["name"] for each in other["pictures"]] == [
            each["name"].replace("mask/", "mask/bucket/") for each in row["pictures"]
        ]
        if row["problem"] is None:
            content = {name: value for name, value in segment(tmp_path / key).to_dict().items() if name != "photo"}
            assert {name: row[name] for name in content} == content


def test_files_of_photos_pass_on_only_if_they_are_drawn(segment: Segmenter, tmp_path: Path) -> None:
    content = (ROOT / "input_images" / "skirt.jpg").read_bytes()
    unit = pa.table({"unit": [pickle.dumps(Contents({"a.jpg": content}))]}, schema=UNITS)
    for keep in (False, True):
        [seen] = Read(segment, keep)(unit)
        assert (content in seen.column("seen")[0].as_py()) == keep


@pytest.mark.parametrize(
    "key", ["../up.jpg", "sub/../../up.jpg", "a//b.jpg", "line\nbreak.jpg", "a" * 300 + ".jpg", ""]
)
def test_a_name_that_can_be_no_path_is_a_problem_of_its_photo(segment: Segmenter, tmp_path: Path, key: str) -> None:
    content = (ROOT / "input_images" / "skirt.jpg").read_bytes()
    tree = open_store(str(tmp_path / "output"))
    first, second = pass_through(segment, [Contents({key: content, "good.jpg": content})], "mask", tree=tree)
    assert (first["key"], first["classes"]) == (key, None)
    assert first["problem"] == "expected a name that can be a path of pictures, found another"
    assert second["problem"] is None
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["good.jpg.png"]


def test_a_picture_that_cannot_be_written_is_a_problem_of_its_photo(segment: Segmenter, tmp_path: Path) -> None:
    content = (ROOT / "input_images" / "skirt.jpg").read_bytes()
    (tmp_path / "pictures" / "mask" / "first.jpg.png").mkdir(parents=True)
    unit = Contents({"first.jpg": content, "second.jpg": content})
    first, second = pass_through(segment, [unit], "mask", tree=open_store(str(tmp_path)))
    assert first["problem"].startswith(f"expected to write {tmp_path / 'pictures' / 'mask' / 'first.jpg.png'}, found")
    assert second["problem"] is None
    assert (tmp_path / "pictures" / "mask" / "second.jpg.png").is_file()


@pytest.mark.parametrize("found", ["none", "others"])
def test_weights_that_a_machine_does_not_have_are_sent_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, found: str
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    here = tmp_path / "weights.onnx"
    shutil.copy(BUNDLED, here)
    content = here.read_bytes()
    elsewhere = pickle.dumps(Segmenter.load(here, device="cpu"))
    if found == "none":
        here.unlink()
    else:
        here.write_bytes(b"others")
    squares = [np.zeros((192, 192, 3), np.uint8)]
    for _ in range(2):  # the second worker of the machine finds them
        network = Network(pickle.loads(elsewhere), lambda: content, 1, 1)
        assert np.isfinite(network.segment.logits(squares)).all()
    assert [path.read_bytes() for path in (tmp_path / "temporary").rglob("*.onnx")] == [content]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has temporary folders of each user")
@pytest.mark.parametrize("theirs", ["open to all", "link", "of another user"])
def test_no_other_user_can_put_weights_where_they_are_looked_for(
    theirs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if theirs == "of another user" and os.getuid() != 0:
        pytest.skip("only root can give files away")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    here = tmp_path / "weights.onnx"
    shutil.copy(BUNDLED, here)
    elsewhere = pickle.dumps(Segmenter.load(here, device="cpu"))
    here.unlink()

    def place_of_weights() -> Path:
        Network(pickle.loads(elsewhere), BUNDLED.read_bytes, 1, 1)
        [path] = (tmp_path / "temporary").rglob("*.onnx")
        return next(folder for folder in path.parents if folder.parent == tmp_path / "temporary")

    place = place_of_weights()
    shutil.rmtree(place)
    if theirs == "link":
        (tmp_path / "linked").mkdir()
        place.symlink_to(tmp_path / "linked")
    else:
        place.mkdir()
        place.chmod(0o777 if theirs == "open to all" else 0o755)
        if theirs == "of another user":
            os.chown(place, 12345, -1)
    other = place_of_weights()
    assert other != place
    assert other.stat().st_uid == os.getuid()
    assert not other.stat().st_mode & 0o022


def test_a_worker_has_the_segmenter_s_settings(segment: Segmenter) -> None:
    flipped = replace(segment, flip=True)
    assert Network(pickle.loads(pickle.dumps(flipped)), BUNDLED.read_bytes, 1, 1).segment.flip
