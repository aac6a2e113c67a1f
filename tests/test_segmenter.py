"""Segmenting from Python: the one way that all scripts stand on."""

import io
import json
import os
import pickle
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, run
from PIL import Image
from pycocotools import mask as coco
from scipy import ndimage

import cloth_segmentation
import infer
from cloth_segmentation.classes import CLASSES
from cloth_segmentation.cutouts import reach
from cloth_segmentation.errors import DataError, DeviceError, RunError
from cloth_segmentation.files import sha256
from infer import Segmentation, Segmenter

ASTRONAUT = ROOT / "input_images" / "astronaut.png"
BUNDLED = ROOT / "trained_checkpoint" / "cloth_segm_u2netp.pth"


@pytest.fixture(scope="module")
def segment() -> Segmenter:
    return Segmenter.load(BUNDLED, device="cpu")


@pytest.fixture(scope="module")
def astronaut(segment: Segmenter) -> Segmentation:
    return segment(ASTRONAUT)


def test_infer_offers_it_by_the_name_that_is_documented() -> None:
    assert infer.Segmenter is Segmenter


def test_a_photo_may_be_a_path_a_picture_or_an_array(segment: Segmenter, astronaut: Segmentation) -> None:
    with Image.open(ASTRONAUT) as picture:
        pixels = np.asarray(picture.convert("RGB"))
        kinds = [str(ASTRONAUT), picture, pixels, np.dstack((pixels, np.full((512, 512), 255, np.uint8)))]
        for one in segment(kinds):
            np.testing.assert_array_equal(one.labels, astronaut.labels)
    grey = np.asarray(Image.fromarray(pixels).convert("L"))
    np.testing.assert_array_equal(segment(grey).labels, segment(np.dstack([grey] * 3)).labels)
    assert (segment(pixels[..., ::-1]).labels != astronaut.labels).any()  # BGR is another picture
    assert segment([]) == []


def test_a_photo_may_be_the_content_of_a_file_or_an_open_file(segment: Segmenter, tmp_path: Path) -> None:
    # Large enough for the JPEG to be decoded at a part of its size, and turned.
    large = Image.open(ROOT / "input_images" / "grace_hopper.jpg").resize((2000, 2600))
    exif = Image.Exif()
    exif[0x0112] = 6
    large.save(tmp_path / "a.jpg", exif=exif)
    expected = segment(tmp_path / "a.jpg")
    assert expected.size == (2600, 2000)
    content = (tmp_path / "a.jpg").read_bytes()
    with (tmp_path / "a.jpg").open("rb") as file:
        for one in segment([content, file, io.BytesIO(content)]):
            np.testing.assert_array_equal(one.labels, expected.labels)
            np.testing.assert_array_equal(one.photo, expected.photo)
            assert one.to_dict()["photo"] is None
    with pytest.raises(DataError, match=r"5 bytes: expected a picture, found a file in no format"):
        segment(b"photo")
    with pytest.raises(DataError, match=r"0 bytes: expected a picture, found an empty file"):
        segment(b"")
    with pytest.raises(DataError, match=r"expected a file to read from, found its end; photo.seek\(0\)"):
        segment(io.BytesIO())
    for same in (bytearray(content), memoryview(content)):
        np.testing.assert_array_equal(segment(same).labels, expected.labels)
    with (
        (tmp_path / "a.jpg").open(encoding="latin-1") as text,
        pytest.raises(TypeError, match="which is opened as text"),
    ):
        segment(text)


@pytest.mark.parametrize("address", ["http://127.0.0.1/a.jpg", "HTTPS://example.org/a.jpg", "file:///a.jpg"])
def test_addresses_are_never_fetched(segment: Segmenter, address: str) -> None:
    for photo in (address, Path(address)):
        with pytest.raises(DataError, match=r"expected a file, found an address, which is never fetched"):
            segment(photo)
        with pytest.raises(RunError, match=r"expected a weights file, found an address"):
            Segmenter.load(photo)


PROGRAM = """
import multiprocessing, pickle, sys
from pathlib import Path
root, method, engine = sys.argv[1:]
sys.path.insert(0, root)
from infer import Segmenter

def work(segment): return segment("a.png")
def inherited(_): return ours("a.png")

if __name__ == "__main__":
    ours = Segmenter.load("weights/cloth_segm_u2netp.pth", device="cpu", engine=engine, flip=True)
    before = ours("a.png")
    with multiprocessing.get_context(method).Pool(1) as pool:
        there = pool.map_async(work, [ours, ours]).get(60)
        if method == "fork":
            there += pool.map_async(inherited, [0]).get(60)
    for one in (*there, pickle.loads(pickle.dumps(ours))("a.png"), pickle.loads(pickle.dumps(before))):
        assert (one.labels == before.labels).all()
        assert one.to_json() == before.to_json()
        assert one.cutout("upper").tobytes() == before.cutout("upper").tobytes()
    print("done", len(there))
"""


@pytest.mark.parametrize(("method", "results"), [("spawn", 2), ("fork", 3)])
@pytest.mark.parametrize("engine", ["onnx", pytest.param("torch", marks=pytest.mark.long)])
def test_it_can_be_sent_to_other_processes(method: str, results: int, engine: str, tmp_path: Path) -> None:
    """Also after it was used here, with several threads, which a forked process does not have."""
    shutil.copy(ASTRONAUT, tmp_path / "a.png")
    shutil.copytree(BUNDLED.parent, tmp_path / "weights")
    (tmp_path / "program.py").write_text(PROGRAM)
    flags = ROOT, method, engine
    threads = "2" if method == "fork" else "1"
    done = run(sys.executable, "program.py", *flags, cwd=tmp_path, env={"OMP_NUM_THREADS": threads})
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"done {results}\n"


FORKED = """
import gc, os, pickle, shutil, sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
root, what = sys.argv[1:]
sys.path.insert(0, root)
from infer import Segmenter
if what == "torch was used before":
    import torch
    torch.nn.Conv2d(3, 32, 3)(torch.rand(4, 3, 256, 256))
    ours, expected = None, None
else:
    ours = Segmenter.load("weights/w.onnx", device="cpu")
    expected = ours("a.png").labels
if what in ("changed", "gone"):
    path = Path("weights/w.onnx")
    path.unlink()
    if what == "changed":
        path.write_bytes(b"others")
os.chdir("weights")
child = os.fork()
if child == 0:
    if what == "freed":  # before it was used here
        del ours
        gc.collect()
    elif what == "left alone":
        pass
    elif what == "torch was used before":
        Segmenter.load("w.pth", device="cpu", engine="torch")("../a.png")
    elif what in ("changed", "gone"):
        try:
            ours("../a.png")
        except RuntimeError as error:
            assert "w.onnx: expected the weights that were loaded before, found others or none" in str(error)
        else:
            sys.exit(3)
    else:
        with ThreadPoolExecutor(4) as pool:
            for one in pool.map(ours, ["../a.png"] * 4):
                assert (one.labels == expected).all()
        assert (pickle.loads(pickle.dumps(ours))("../a.png").labels == expected).all()
    sys.exit(0)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.parametrize("what", ["used", "left alone", "freed", "changed", "gone", "torch was used before"])
def test_a_forked_process_goes_on_and_ends(what: str, tmp_path: Path) -> None:
    """Also in another folder, since the weights were named by a relative path."""
    shutil.copy(ASTRONAUT, tmp_path / "a.png")
    (tmp_path / "weights").mkdir()
    for ending in (".pth", ".onnx"):
        shutil.copy(BUNDLED.with_suffix(ending), tmp_path / "weights" / f"w{ending}")
    (tmp_path / "program.py").write_text(FORKED)
    done = run(sys.executable, "program.py", ROOT, what, cwd=tmp_path, env={"OMP_NUM_THREADS": "2"})
    assert done.returncode == 0, done.stderr


def test_weights_that_have_changed_are_not_taken_for_those_that_were_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "w.onnx"
    shutil.copy(BUNDLED.with_suffix(".onnx"), path)
    sent = pickle.loads(pickle.dumps(Segmenter.load(path, device="cpu")))
    assert sent.describe() == Segmenter.load(path, device="cpu").describe()
    monkeypatch.chdir(tmp_path)  # a path holds in other folders too
    shutil.copy(path, "other.onnx")
    relative = Segmenter.load("other.onnx", device="cpu")
    monkeypatch.chdir(ROOT)
    assert pickle.loads(pickle.dumps(relative))(ASTRONAUT).found
    path.write_bytes(b"others")
    with pytest.raises(RunError, match=r"w.onnx: expected the weights that the Segmenter was made with, found others"):
        sent(ASTRONAUT)


def test_threads_may_share_one(segment: Segmenter, astronaut: Segmentation) -> None:
    sent = pickle.loads(pickle.dumps(segment))
    with ThreadPoolExecutor(4) as pool:
        for one in pool.map(sent, [ASTRONAUT] * 8):
            np.testing.assert_array_equal(one.labels, astronaut.labels)


@pytest.mark.parametrize(
    "array",
    [np.zeros((3, 40, 50), np.uint8), np.zeros((40, 50, 3), np.float32), np.zeros((0, 5, 3), np.uint8), np.zeros(3)],
)
def test_other_arrays_are_refused_in_words(segment: Segmenter, array: np.ndarray) -> None:
    with pytest.raises(DataError, match=r"expected a photo as an array \(H, W, 3\), .* found one of shape \(.*\) of"):
        segment(array)


@pytest.mark.parametrize("picture", [Image.new("RGB", (5, 0)), Image.new("RGB", (0, 5))])
def test_pictures_that_show_nothing_are_refused_in_words(segment: Segmenter, picture: Image.Image) -> None:
    with pytest.raises(DataError, match=r"expected a photo, found a picture "):
        segment(picture)


@pytest.mark.parametrize("photo", [None, 5, [None], iter([]), io.StringIO("photo")])
def test_what_is_no_photo_is_refused_in_words(segment: Segmenter, photo: object) -> None:
    with pytest.raises(TypeError, match=r"expected a photo \(path, Pillow picture or array\).*, found "):
        segment(photo)


WRONG = [
    *({"size": size} for size in ("384", 16, (64,), 384.0, None, ("64", "64"), (64.0, 64.0), 10**6, True)),
    *({"min_area": share} for share in (3, -1, "0.1", None)),
    *({"device": device} for device in (None, 0)),
    {"engine": "tf"},
    {"amp": "fp8"},
    {"flip": "no"},
]


@pytest.mark.parametrize("arguments", WRONG, ids=str)
def test_arguments_that_options_would_refuse_are_refused(arguments: dict[str, object]) -> None:
    [name] = arguments
    with pytest.raises(ValueError, match=f"{name}: expected .*, found "):
        Segmenter.load(BUNDLED, **arguments)
    with pytest.raises(RunError, match=r"device: expected auto, cpu, cuda, .* found 'gpu'"):
        Segmenter.load(BUNDLED, device="gpu")


def test_one_number_is_the_size_of_both_sides(segment: Segmenter) -> None:
    assert Segmenter.load(BUNDLED, device="cpu", size=64).size == (64, 64)
    assert Segmenter.load(BUNDLED, device="cpu", size=[64, 96]).size == (64, 96)
    for wrong in (0, "2", 1.5, None):
        for photos in ([ASTRONAUT], ASTRONAUT):
            with pytest.raises(ValueError, match="batch_size: expected a whole number of at least 1, found "):
                segment(photos, batch_size=wrong)


def test_what_names_no_file_is_refused_in_words(segment: Segmenter, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected the path of a photo, found an empty text"):
        segment("")
    for wrong in ("", 1, b"x"):
        with pytest.raises(ValueError, match="checkpoint: expected the path of a weights file, found "):
            Segmenter.load(wrong)
    library = cloth_segmentation.Segmenter
    for name in ("no.pth", "no.onnx"):
        with pytest.raises(RunError, match=rf"{name}: expected .*, found (none of that name|no file)$"):
            library.load(tmp_path / name)
    with pytest.raises(RunError, match="expected a weights file, found a folder"):
        library.load(tmp_path)
    shutil.copy(BUNDLED, tmp_path / "w.pth")
    with pytest.raises(RunError, match=r"w.pth: expected an ONNX file, found weights of another format; in a clone"):
        library.load(tmp_path / "w.pth")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"engine": "torch"}, "engine torch"),
        ({"amp": "bf16"}, "amp bf16"),
        ({"size": "native"}, "size native"),
        ({"size": (300, 64)}, r"a size of 300 x 64 \(for multiples of 32, such as 288 x 64, none is needed\)"),
    ],
)
def test_the_library_says_what_only_pytorch_can_do(arguments: dict[str, object], words: str) -> None:
    with pytest.raises(DeviceError, match=f"expected PyTorch for {words}, found the library alone"):
        cloth_segmentation.Segmenter.load(**arguments)


def test_it_shows_itself_in_one_line(astronaut: Segmentation) -> None:
    assert repr(astronaut) == f"<Segmentation of 512 x 512 pixels: {', '.join(astronaut.found)}>"


def test_photos_of_all_sizes_go_through_one_by_one_at_their_own(weights: Path) -> None:
    native = Segmenter.load(weights, device="cpu", size="native")
    small, large = native([Image.new("RGB", (64, 96)), Image.new("RGB", (50, 40))], batch_size=4)
    assert (small.size, large.size) == ((64, 96), (50, 40))
    assert small.to_dict()["weights"]["seen_at"] is None


def test_a_batch_goes_through_at_once(weights: Path) -> None:
    segment = Segmenter.load(weights, device="cpu")
    sizes = []
    segment.engine.network.register_forward_hook(lambda module, inputs, outputs: sizes.append(len(inputs[0])))
    segment([Image.new("RGB", (64, 64))] * 5, batch_size=2)
    assert sizes == [2, 2, 1]


def test_json_names_the_weights_that_were_loaded(weights: Path, tmp_path: Path) -> None:
    shutil.copy(weights, tmp_path / "w.pth")
    segment = Segmenter.load(tmp_path / "w.pth", device="cpu")
    expected = sha256(weights)
    (tmp_path / "w.pth").write_bytes(b"others")  # as training does with the best ones
    first = segment(Image.new("RGB", (64, 64))).to_dict()["weights"]
    assert first["sha256"] == expected
    first["file"] = "changed"
    assert segment.weights()["file"] == "w.pth"


def test_onnx_runtime_tells_nobody_of_its_use(tmp_path: Path) -> None:
    code = f"from infer import Segmenter; Segmenter.load({str(BUNDLED)!r}, engine='onnx')({str(ASTRONAUT)!r})"
    done = run(sys.executable, "-c", code, env={"TMPDIR": str(tmp_path)})
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == []  # it would note its session there before it looks up its makers


def test_what_is_there_and_where(astronaut: Segmentation) -> None:
    assert astronaut.size == (512, 512)
    assert astronaut.labels.dtype == np.uint8
    present = [CLASSES[number] for number in np.unique(astronaut.labels) if number]
    assert astronaut.found == tuple(present)
    assert present
    probabilities = astronaut.probabilities()
    assert (probabilities.shape, probabilities.dtype) == ((4, 512, 512), np.float32)
    np.testing.assert_allclose(probabilities.sum(0), 1, atol=1e-5)
    np.testing.assert_array_equal(probabilities.argmax(0), astronaut.labels)
    with Image.open(ASTRONAUT) as photo:
        np.testing.assert_array_equal(astronaut.photo, photo.convert("RGB"))
    np.testing.assert_array_equal(np.asarray(astronaut.mask()), astronaut.labels)
    np.testing.assert_array_equal(np.asarray(astronaut.class_mask("upper")) == 255, astronaut.labels == 1)


def test_some_classes_only(astronaut: Segmentation) -> None:
    upper = astronaut.only("upper")
    np.testing.assert_array_equal(upper.labels, np.where(astronaut.labels == 1, 1, 0))
    assert upper.classes == upper.found == ("upper body",)
    assert [entry["name"] for entry in upper.to_dict()["classes"]] == ["upper body"]
    assert astronaut.only("full body", "upper").classes == ("upper body", "full body")
    assert astronaut.only().found == ()
    for wrong in ("hat", "Upper body", "0"):
        with pytest.raises(ValueError, match=r"expected a class \(background, upper body, .*\), found '"):
            astronaut.only(wrong)


def labels_of(json_text: str) -> np.ndarray:
    """The label map that a JSON file holds, by pycocotools."""
    content = json.loads(json_text)
    labels = np.zeros((content["height"], content["width"]), np.uint8)
    for entry in content["classes"]:
        labels[coco.decode(entry["segmentation"]) == 1] = entry["id"]
    return labels


def test_json_holds_the_very_label_map(astronaut: Segmentation) -> None:
    content = json.loads(astronaut.to_json())
    assert (content["version"], content["width"], content["height"]) == (1, 512, 512)
    assert content["photo"] == str(ASTRONAUT)
    weights = content["weights"]
    assert weights["sha256"] == sha256(astronaut.segmenter.path)
    info = astronaut.segmenter.info
    assert weights["validation_iou"] == info.mean_iou_clothes is not None
    assert weights["seen_at"] == list(info.size)
    assert (weights["file"], weights["arch"]) == (astronaut.segmenter.path.name, "u2netp")
    np.testing.assert_array_equal(labels_of(astronaut.to_json()), astronaut.labels)
    assert [entry["name"] for entry in content["classes"]] == list(CLASSES[1:])
    for entry in content["classes"]:
        mask = astronaut.labels == entry["id"]
        assert entry["pixels"] == mask.sum() == coco.area(entry["segmentation"])
        assert entry["share"] == pytest.approx(mask.mean())
        if mask.any():
            assert entry["box"] == coco.toBbox(entry["segmentation"]).tolist()
        else:
            assert entry["box"] is None


def test_a_cutout_shows_the_garment_and_nothing_else(astronaut: Segmentation) -> None:
    cutout = astronaut.cutout("upper body")
    assert (cutout.mode, cutout.size) == ("RGBA", (512, 512))
    pixels, photo = np.asarray(cutout), np.asarray(astronaut.photo)
    alpha, garment = pixels[..., 3], astronaut.labels == 1
    assert (alpha[garment] >= 128).all()
    assert (alpha[~garment] < 128).all()
    soft = (alpha > 0) & (alpha < 255)
    assert 0.02 < soft.sum() / garment.sum() < 0.2  # an edge, and no more
    assert len(np.unique(alpha)) > 100  # of all depths
    np.testing.assert_array_equal(pixels[alpha == 255, :3], photo[alpha == 255])
    assert not pixels[alpha == 0].any()  # what is cut away is not passed on
    cropped = astronaut.cutout("upper", crop=True)
    left, top, right, bottom = cutout.getchannel("A").getbbox()
    assert cropped.size == (right - left, bottom - top)
    np.testing.assert_array_equal(cropped, cutout.crop((left, top, right, bottom)))


def test_a_cutout_of_what_is_not_there_is_empty(astronaut: Segmentation) -> None:
    for crop in (False, True):
        empty = astronaut.only("full").cutout("upper", crop=crop)
        assert empty.size == (512, 512)
        assert empty.getextrema() == ((0, 0),) * 4


def test_a_cutout_may_have_a_background(astronaut: Segmentation) -> None:
    clear = astronaut.cutout("upper", crop=True)
    filled = astronaut.cutout("upper", crop=True, background=(10, 200, 30))
    assert (filled.mode, filled.size) == ("RGB", clear.size)
    pixels, alpha = np.asarray(filled), np.asarray(clear)[..., 3]
    np.testing.assert_array_equal(pixels[alpha == 255], np.asarray(clear)[alpha == 255, :3])
    assert (pixels[alpha == 0] == (10, 200, 30)).all()


def test_clothes_reach_as_far_as_is_wanted(astronaut: Segmentation) -> None:
    grown, shrunk = astronaut.only("upper").grown(7), astronaut.shrunk(7)
    upper = astronaut.labels == 1
    assert (upper & (grown.labels == 1)).sum() == upper.sum() < (grown.labels == 1).sum()
    assert 0 < (shrunk.labels == 1).sum() == ((shrunk.labels == 1) & upper).sum() < upper.sum()
    assert grown.to_dict()["classes"][0]["pixels"] == (grown.labels == 1).sum()
    alpha = np.asarray(grown.cutout("upper"))[..., 3]
    assert ((alpha >= 128) == (grown.labels == 1)).all()
    for wrong in (-1, 1.5, True):
        with pytest.raises(ValueError, match="pixels: expected a whole number of at least 0, found"):
            astronaut.grown(wrong)


def test_a_photo_that_has_changed_is_not_cut_by_the_old_mask(segment: Segmenter, tmp_path: Path) -> None:
    path = tmp_path / "a.bmp"  # all files of one size have the same number of bytes
    with Image.open(ASTRONAUT) as photo:
        photo.save(path)
        others = [photo.rotate(90), photo.crop((0, 0, 20, 30)), photo]
    for other in others:
        one = segment(path)
        other.save(tmp_path / "new.bmp")
        (tmp_path / "new.bmp").replace(path)
        for again in (one, pickle.loads(pickle.dumps(one))):
            for make in (lambda one: one.cutout("upper"), lambda one: one.overlay(), lambda one: one.photo):
                with pytest.raises(DataError, match=r"a.bmp: expected the photo that was segmented, found that its"):
                    make(again)
    assert segment(path).overlay().size == (512, 512)


HIDDEN = np.zeros((512, 512), np.uint8)
HIDDEN[:, :256] = 255
HIDDEN[300:, :256] = 100


def see_through(name: str, path: Path) -> Image.Image:
    """Write the astronaut, whose right half is transparent and whose lower left is half so, and give what is visible.

    Formats that know only opaque and transparent have no half.
    """
    with Image.open(ASTRONAUT) as photo:
        picture = photo.convert("L" if name.startswith("grey") else "RGB")
    alpha = HIDDEN if not name.startswith(("palette", "key")) else np.where(HIDDEN > 0, 255, 0).astype(np.uint8)
    if name.startswith("palette"):
        picture = picture.quantize(64)
        pixels = np.where(alpha > 0, np.asarray(picture), np.uint8(255))
        colours = picture.getpalette()
        picture = Image.fromarray(pixels)
        picture.putpalette(colours + [0] * (768 - len(colours)))
        picture.save(path, transparency=255)
    elif name.startswith("key"):  # one colour, which the photo has nowhere else, stands for transparency
        pixels = np.array(picture).clip(0, 254)
        pixels[alpha == 0] = (255, 0, 255)
        Image.fromarray(pixels).save(path, transparency=(255, 0, 255))
    else:
        picture.putalpha(Image.fromarray(alpha))
        picture.save(path, **({"lossless": True, "exact": True} if path.suffix == ".webp" else {}))
    return Image.fromarray(alpha)


@pytest.mark.parametrize(
    "name", ["colour.png", "grey.png", "palette.png", "palette.gif", "key.png", "colour.webp", "colour.tif"]
)
def test_what_is_transparent_stays_so_and_is_background(segment: Segmenter, tmp_path: Path, name: str) -> None:
    alpha = np.asarray(see_through(name, tmp_path / name))
    one = segment(tmp_path / name)
    largest = max(range(1, 4), key=lambda number: (one.labels == number).sum())
    assert not one.labels[alpha == 0].any()
    whole = replace(segment, min_area=0.9)(tmp_path / name)
    assert not whole.labels[alpha == 0].any()
    with Image.open(tmp_path / name) as picture:
        picture.load()
        np.testing.assert_array_equal(segment(picture).labels, one.labels)
        shown = np.asarray(picture.convert("RGBA"))
    for again in (one, segment((tmp_path / name).read_bytes()), segment(shown)):
        for clothes in CLASSES[1:]:
            cut = np.asarray(again.cutout(clothes))
            assert (cut[..., 3] <= alpha).all()
            assert not cut[alpha == 0].any()
        cut = np.asarray(again.cutout(CLASSES[largest]))
        inside = ndimage.binary_erosion(one.labels == largest, iterations=4)
        assert inside.sum() > 1000
        np.testing.assert_array_equal(cut[inside][:, 3], alpha[inside])  # to the same degree
        opaque = inside & (alpha == 255)
        np.testing.assert_array_equal(cut[opaque], shown[opaque])
        half = inside & (alpha == 100)
        np.testing.assert_array_equal(cut[half], shown[half])  # its own colours, not those over white


def test_the_command_keeps_what_is_transparent_so(tmp_path: Path) -> None:
    alpha = np.asarray(see_through("colour.png", tmp_path / "a.png"))
    flags = [
        f"--input={tmp_path / 'a.png'}",
        f"--output={tmp_path / 'out'}",
        "--device=cpu",
        "--save=mask,cutout,classes",
    ]
    assert infer.main([*flags, f"--checkpoint={BUNDLED}"]) == 0
    with Image.open(tmp_path / "out" / "a.png") as mask, Image.open(tmp_path / "out" / "a_cutout_upper.png") as cut:
        assert not np.asarray(mask)[alpha == 0].any()
        assert np.asarray(mask)[alpha > 0].any()
        assert (np.asarray(cut)[..., 3] <= alpha).all()


def test_what_is_odd_about_a_photo_is_told(segment: Segmenter, tmp_path: Path) -> None:
    assert segment(ASTRONAUT).notes == ()
    for picture in (Image.new("RGB", (40, 30), "navy"), Image.new("I;16", (40, 30)), Image.new("F", (40, 30))):
        assert segment(picture).notes == (
            "expected a photo, found a picture of one colour, in which there is nothing to see",
        )


def test_a_photo_may_go_once_it_was_read(segment: Segmenter, tmp_path: Path) -> None:
    shutil.copy(ASTRONAUT, tmp_path / "a.png")
    one = segment(tmp_path / "a.png")
    before = one.cutout("upper")
    (tmp_path / "a.png").unlink()
    assert one.cutout("upper") == before


def test_a_list_gives_what_single_calls_and_the_command_line_give(segment: Segmenter, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    paths = [tmp_path / "in" / f"{number}.png" for number in range(8)]
    for number, path in enumerate(paths):
        with Image.open(sorted((ROOT / "input_images").glob("*.[jp][pn]g"))[number % 2]) as photo:
            photo.crop((20 * number, 30 * number, 512, 512)).rotate(-10 * number).save(path)
    command = [f"--input={tmp_path / 'in'}", f"--output={tmp_path / 'out'}", "--device=cpu", f"--checkpoint={BUNDLED}"]
    assert infer.main([*command, "--save=mask,json"]) == 0
    assert len(paths) == 8
    for path, one in zip(paths, segment(paths, batch_size=4), strict=True):
        np.testing.assert_array_equal(one.labels, segment(path).labels)
        with Image.open(tmp_path / "out" / f"{path.stem}.png") as mask:
            np.testing.assert_array_equal(one.labels, mask)
        text = (tmp_path / "out" / f"{path.stem}.json").read_text()
        assert text == one.to_json()
        np.testing.assert_array_equal(labels_of(text), one.labels)


def test_a_path_of_bytes_that_are_no_text_stays_in_json(segment: Segmenter, tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"\xff.png")
    try:
        Image.new("RGB", (20, 30)).save(path)
    except OSError:
        pytest.skip("this file system takes only names that are text")
    assert json.loads(segment(path).to_json())["photo"] == str(path)


def test_edges_are_softer_in_large_photos() -> None:
    assert reach((400, 500)) == 1
    assert reach((3000, 2000)) == 4
