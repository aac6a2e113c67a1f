"""A folder of label PNGs gives the labels that it shows, whoever has written it."""

import json
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import CCP, PhotoFolder, TrainFlags, needs_ccp, state_of, write_photos
from PIL import Image

import evaluate
import infer
import train
from cloth_segmentation.classes import CLOTHES, ClassSet
from cloth_segmentation.colors import Color
from cloth_segmentation.errors import DataError
from cloth_segmentation.files import atomic_path
from cloth_segmentation.pictures import NO_CLASS
from cloth_segmentation.weights_info import WeightsInfo
from data.annotations import Annotations
from data.checks import Checked, read_checked
from data.dataset import Draw, LabelledPhotos, TrainingSquares
from data.label_map import IGNORED, ignored_label, merge
from data.labels import read_annotations, scan
from data.prepared import PreparedPhotos
from data.transforms import Augmentation
from networks import U2NETP, DeepSupervisionLoss
from utils.comparison import colour
from utils.evaluation_pictures import PANEL_HEIGHT, panel
from utils.metrics import boundary_overlap, confusion_matrix
from utils.weights_files import save_weights

Labels = np.ndarray
Writer = Callable[[Labels, Path], None]


def png(width: int, height: int, bits: int, kind: int, rows: list[bytes]) -> bytes:
    """A PNG whose rows are packed already."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def packed_grey(bits: int) -> Writer:
    def write(labels: Labels, path: Path) -> None:
        each = 8 // bits
        padded = np.pad(labels, ((0, 0), (0, -labels.shape[1] % each)))
        parts = padded.reshape(len(labels), -1, each).astype(np.int64)
        rows = (parts << bits * np.arange(each)[::-1]).sum(2).astype(np.uint8)
        path.write_bytes(png(labels.shape[1], labels.shape[0], bits, 0, [row.tobytes() for row in rows]))

    return write


def palette(order: tuple[int, ...] = (0, 1, 2, 3), **settings: object) -> Writer:
    """Indices whose colours are those of classes, in this order."""

    def write(labels: Labels, path: Path) -> None:
        table = np.zeros(256, np.uint8)
        table[list(order)] = np.arange(4)
        picture = Image.fromarray(table[labels])
        picture.putpalette([value for number in order for value in CLOTHES.palette[number]])
        picture.save(path, **settings)

    return write


def colours(mode: str) -> Writer:
    return lambda labels, path: Image.fromarray(np.array(CLOTHES.palette, np.uint8)[labels]).convert(mode).save(path)


def grey(labels: Labels, path: Path) -> None:
    Image.fromarray(labels).save(path)


def grey_and_alpha(labels: Labels, path: Path) -> None:
    Image.fromarray(np.dstack((labels, np.full_like(labels, 255)))).save(path)


WRITERS: dict[str, Writer] = {
    "palette": palette(),
    "2-bit palette": palette(bits=2),
    "reordered palette": palette((2, 0, 3, 1)),
    "grey": grey,
    "4-bit grey": packed_grey(4),
    "2-bit grey": packed_grey(2),
    "grey and alpha": grey_and_alpha,
    "colours": colours("RGB"),
    "colours and alpha": colours("RGBA"),
}


def merged(index: Annotations, number: int) -> Labels:
    photo = index[number]
    return merge(photo.masks, (photo.height, photo.width))


def write_labels(index: Annotations, folder: Path, write: Writer | None = None) -> Path:
    """The label map of each photo as a PNG."""
    for number, name in enumerate(index.names.tolist()):
        path = (folder / name).with_suffix(".png")
        path.parent.mkdir(parents=True, exist_ok=True)
        (write or palette())(merged(index, number), path)
    return folder


def checked(labels: Path, images: Path, classes: ClassSet = CLOTHES, ignored: int | None = None) -> Checked:
    found = read_checked(("--df_path", str(labels)), ("--image_folder", str(images)), classes, ignored=ignored)
    assert not found.faults, found.report
    return found


def assert_same_labels(one: LabelledPhotos, other: LabelledPhotos) -> None:
    """At the photos' own size and squashed."""
    assert one.names == other.names
    for number in range(len(one)):
        for labels, wanted in (
            (one[number][1], other[number][1]),
            (one.squashed(number, (48, 64))[1], other.squashed(number, (48, 64))[1]),
            (one.squashed(number, (200, 90))[1], other.squashed(number, (200, 90))[1]),
        ):
            np.testing.assert_array_equal(labels, wanted)


@pytest.mark.parametrize("kind", WRITERS)
def test_labels_are_those_that_were_drawn(kind: str, photo_folder: PhotoFolder, tmp_path: Path) -> None:
    index = read_annotations(photo_folder.csv)
    found = checked(write_labels(index, tmp_path / "labels", WRITERS[kind]), photo_folder.images)
    photos = LabelledPhotos(found.photos, photo_folder.images)
    assert_same_labels(photos, LabelledPhotos(index, photo_folder.images))
    assert len(np.unique(photos[1][1])) == 3
    assert scan(tmp_path / "labels").categories == {"upper body": 5, "lower body": 5, "full body": 3}
    reordered = "8 palette PNGs whose colours are those of other classes than their values; colours are taken"
    assert (reordered in found.notes) == (kind == "reordered palette")
    assert bool(found.notes) == (kind == "reordered palette")  # that names lack their endings is no news


def test_one_bit_is_background_and_the_first_class(tmp_path: Path) -> None:
    drawn = np.zeros((80, 60), dtype=bool)
    drawn[3:40, 7:50] = True
    Image.fromarray(drawn).save(tmp_path / "001.png")
    found = read_annotations(tmp_path)[0]
    np.testing.assert_array_equal(merge(found.masks, drawn.shape), drawn)
    assert found.name == "001"


def test_small_areas_stay(tmp_path: Path) -> None:
    drawn = np.zeros((900, 1000), np.uint8)
    drawn[7, 9] = 2
    grey(drawn, tmp_path / "a.png")
    Image.new("RGB", (1000, 900)).save(tmp_path / "a.jpg")
    photos = LabelledPhotos(checked(tmp_path, tmp_path).photos, tmp_path)
    np.testing.assert_array_equal(photos[0][1], drawn)


def ccp_photos(count: int | None) -> Annotations:
    index = read_annotations(CCP / "train.csv")
    return index if count is None else index.select(np.arange(0, len(index), len(index) // count)[:count])


@needs_ccp
@pytest.mark.parametrize("count", [12, pytest.param(None, marks=pytest.mark.long)])
def test_labels_of_photos_come_back_pixel_for_pixel(count: int | None, tmp_path: Path) -> None:
    index = ccp_photos(count)
    found = checked(write_labels(index, tmp_path), CCP / "train").photos
    order = np.argsort(index.names.tolist(), kind="stable")
    assert found.names.tolist() == index.names[order].tolist()
    for number, other in enumerate(order.tolist()):
        shape = found.size(number)[::-1]
        for size in (None, (768, 768), (96, 64)):
            ours = merge(found[number].masks, shape, size, drop_small=False)
            np.testing.assert_array_equal(ours, merge(index[other].masks, shape, size))


def test_names_of_photos(tmp_path: Path) -> None:
    images, labels = tmp_path / "images", tmp_path / "labels"
    drawn = np.eye(8, dtype=np.uint8)
    pairs = [("a.jpg", "a.png"), ("s/b.webp", "s/b.png"), ("C.JPG", "c.PNG"), ("d.v1.png", "d.v1.png"),
             ("e.jpg", "e.jpg.png"), ("f.png", "f.png")]  # fmt: skip
    for photo, label in pairs:
        for path in (images / photo, labels / label):
            path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(images / photo)
        Image.fromarray(drawn).save(labels / label, format="PNG")
    (labels / ".hidden.png").write_bytes(b"nothing")
    (labels / "c_overlay.jpg").write_bytes(b"nothing")
    (labels / "c.json").write_text('{"classes": []}\n')
    (labels / "linked").symlink_to(labels)
    found = checked(labels, images)
    assert sorted(found.photos.names.tolist()) == sorted(photo for photo, _ in pairs)
    assert "1 photos whose files are called otherwise than in the labels: c -> C.JPG" in found.notes


def test_names_may_hold_any_bytes(tmp_path: Path) -> None:
    (tmp_path / "labels").mkdir()
    name = os.fsdecode(b"caf\xe9 \xf0\x9f\x91\x97")
    Image.fromarray(np.eye(8, dtype=np.uint8)).save(tmp_path / "labels" / f"{name}.png")
    Image.new("RGB", (8, 8)).save(tmp_path / f"{name}.jpg")
    found = checked(tmp_path / "labels", tmp_path).photos
    assert os.fsencode(found.names.tolist()[0]) == b"caf\xe9 \xf0\x9f\x91\x97.jpg"
    assert LabelledPhotos(found, tmp_path)[0][1].any()


def test_labels_may_lie_among_the_photos(tmp_path: Path) -> None:
    for place in ("", "deep/"):
        (tmp_path / place).mkdir(exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / f"{place}a.jpg")
        Image.fromarray(np.eye(8, dtype=np.uint8)).save(tmp_path / f"{place}a.png")
    assert checked(tmp_path, tmp_path).photos.names.tolist() == ["a.jpg", "deep/a.jpg"]
    found = checked(tmp_path / "deep", tmp_path / "deep").photos
    assert LabelledPhotos(found, tmp_path / "deep")[0][1].sum() == 8


@pytest.fixture(scope="session")
def clothes_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """U2NETP with random weights that sees photos at 64 x 64."""
    torch.manual_seed(3)  # which gives background and upper body
    path = tmp_path_factory.mktemp("weights") / "small.pth"
    save_weights(path, U2NETP(3, len(CLOTHES)).state_dict(), WeightsInfo("u2netp", CLOTHES, (64, 64), step=1))
    return path


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory, clothes_weights: Path) -> tuple[PhotoFolder, Path]:
    """Photos, and all that infer.py writes for them."""
    folder = tmp_path_factory.mktemp("written")
    photos = write_photos(folder, 3)
    flags = [f"--input={photos.images}", f"--output={folder / 'out'}", f"--checkpoint={clothes_weights}"]
    assert infer.main([*flags, "--device=cpu", "--save=mask,classes,cutout,overlay,json"]) == 0
    return photos, folder / "out"


@pytest.mark.parametrize("kept", ["NNN", "NNN_mask_*", "NNN_cutout_*", "NNN_mask_* NNN_cutout_*", "*"])
def test_what_infer_writes_comes_back(kept: str, written: tuple[PhotoFolder, Path], tmp_path: Path) -> None:
    photos, out = written
    for pattern in kept.split():
        for path in out.glob("*" if pattern == "*" else pattern.replace("NNN", "[0-9][0-9][0-9]") + ".png"):
            (tmp_path / path.name).write_bytes(path.read_bytes())
    found = checked(tmp_path, photos.images)
    masks = [np.asarray(Image.open(out / f"{number:03d}.png")) for number in range(3)]
    assert {value for mask in masks for value in np.unique(mask)} == {0, 1}
    for number, mask in enumerate(masks):
        np.testing.assert_array_equal(LabelledPhotos(found.photos, photos.images)[number][1], mask)
    left_out = {"*": list(out.glob("*_*_*.png")), "NNN_mask_* NNN_cutout_*": list(out.glob("*_cutout_*.png"))}
    several = left_out.get(kept, [])
    assert (f"{len(several)} class masks or cut-outs that are left out" in found.notes) == bool(several)


def test_infer_and_evaluate_agree(
    written: tuple[PhotoFolder, Path], clothes_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos, out = written
    flags = [f"--checkpoint={clothes_weights}", f"--image_folder={photos.images}", f"--df_path={out}", "--device=cpu"]
    assert evaluate.main([*flags, f"--json={tmp_path / 'found.json'}"]) == 0
    assert json.loads((tmp_path / "found.json").read_text())["mean_iou"] == 1
    assert "class masks or cut-outs that are left out, since there is" in capsys.readouterr().err


def test_where_a_colour_is_of_no_class_indices_are_taken(tmp_path: Path) -> None:
    drawn = np.array([[0, 1], [2, 3]], np.uint8)
    palette((2, 0, 3, 1))(drawn, tmp_path / "a.png")
    found = scan(tmp_path)
    np.testing.assert_array_equal(merge(found.photos[0].masks, (2, 2), drop_small=False), drawn)
    strange = Image.fromarray(np.ones((2, 2), np.uint8))
    strange.putpalette([0, 0, 0, 7, 8, 9])
    strange.save(tmp_path / "b.png")
    found = scan(tmp_path)
    assert found.photos.format != scan(tmp_path, ignored=1).photos.format
    np.testing.assert_array_equal(
        merge(found.photos[0].masks, (2, 2), drop_small=False), np.asarray(Image.open(tmp_path / "a.png"))
    )
    assert found.notes == (
        "1 palette PNGs whose colours are those of other classes than their values; values are taken, as not all "
        "colours are those of classes (b.png): a.png",
    )


@pytest.mark.parametrize("colors", [[(0, 0, 0)] * 4, [(0, 0, 0), *[(128, 0, 0)] * 3], [(255, 255, 255)] * 4])
def test_palettes_in_which_values_share_a_colour_tell_nothing(colors: list[Color], tmp_path: Path) -> None:
    drawn = np.array([[0, 1], [2, 3]], np.uint8)
    picture = Image.fromarray(drawn)
    picture.putpalette([part for color in colors for part in color])
    picture.save(tmp_path / "a.png")
    found = scan(tmp_path)
    np.testing.assert_array_equal(merge(found.photos[0].masks, (2, 2), drop_small=False), drawn)
    assert found.notes == ()


# Pixels that do not count


def with_hole(labels: Labels, value: int) -> Labels:
    """The label map with a square that is of no class."""
    changed = labels.copy()
    changed[10:30, 20:50] = value
    return changed


def hole(value: int) -> Writer:
    return lambda labels, path: Image.fromarray(with_hole(labels, value)).save(path)


@pytest.mark.parametrize("value", [255, 7, 0])
def test_pixels_of_no_class_become_ignored(value: int, photo_folder: PhotoFolder, tmp_path: Path) -> None:
    index = read_annotations(photo_folder.csv)
    labels = write_labels(index, tmp_path / "labels", hole(value))
    found = checked(labels, photo_folder.images, ignored=value).photos
    wanted = with_hole(merged(index, 1), IGNORED)
    if value == 0:
        wanted[merged(index, 1) == 0] = IGNORED
    photos = LabelledPhotos(found, photo_folder.images)
    np.testing.assert_array_equal(photos[1][1], wanted)
    squashed = photos.squashed(1, (32, 32))[1]
    np.testing.assert_array_equal(squashed, np.asarray(Image.fromarray(wanted).resize((32, 32), 0)))
    kept = PreparedPhotos(found, photo_folder.images, folder=tmp_path / "kept", writer=atomic_path)
    for _ in range(2):  # written, read
        np.testing.assert_array_equal(kept.squashed(1, (32, 32))[1], squashed)


CHANGES = [
    Augmentation(recolor=1), Augmentation(portrait=1), Augmentation(pair=1), Augmentation(crop=0.5),
    Augmentation(flip=1, rotate=20, shift=0.1, scale=0.2), Augmentation(color=0.5),
    Augmentation(recolor=1, portrait=0.5, pair=0.5, crop=0.3, flip=0.5, rotate=10, color=0.2),
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_augmentation_takes_ignored_pixels_for_no_class(
    change: Augmentation, photo_folder: PhotoFolder, tmp_path: Path
) -> None:
    index = read_annotations(photo_folder.csv)
    found = checked(write_labels(index, tmp_path / "l", hole(255)), photo_folder.images, ignored=255).photos
    plain = checked(write_labels(index, tmp_path / "m", hole(0)), photo_folder.images).photos
    for number in range(8):
        for seed in range(4):
            pixels, labels = TrainingSquares(LabelledPhotos(found, photo_folder.images), (64, 64), change)[
                Draw(number, seed)
            ]
            others, background = TrainingSquares(LabelledPhotos(plain, photo_folder.images), (64, 64), change)[
                Draw(number, seed)
            ]
            assert set(labels.unique().tolist()) <= {0, 1, 2, 3, IGNORED}
            # Photos are changed as if it were background, and it moves with the photo.
            assert torch.equal(pixels, others)
            assert torch.equal(labels * (labels != IGNORED), background)


def test_a_set_of_256_classes_has_none_to_spare(tmp_path: Path) -> None:
    many = ClassSet.of_names(["background", *(f"c{number}" for number in range(255))], "many")
    grey(np.full((4, 4), 255, np.uint8), tmp_path / "a.png")
    with pytest.raises(DataError) as error:
        scan(tmp_path, many, ignored=7)
    assert str(error.value) == (
        "expected at most 255 classes beside --ignore_index, found the 256 of --classes many; leave it out"
    )
    found = scan(tmp_path, many)
    assert found.categories == {"c254": 1}
    labels = torch.from_numpy(merge(found.photos[0].masks, (4, 4)).astype(np.int64))[None]
    logits = [torch.zeros(1, 256, 4, 4)] * 7
    assert DeepSupervisionLoss(256, ignored=ignored_label(256))(logits, labels)[1] > 5
    pixels = torch.zeros(3, 4, 4, dtype=torch.uint8)
    recolor = Augmentation(recolor=1, ignored=ignored_label(256))
    assert not torch.equal(recolor(pixels, labels[0].to(torch.uint8), 0)[0], pixels)
    assert not torch.equal(recolor(pixels, torch.full((4, 4), 156, dtype=torch.uint8), 0)[0], pixels)


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("share", [0.3, 1.0])
def test_ignored_pixels_do_not_change_the_loss(share: float, soft: bool) -> None:
    torch.manual_seed(0)
    outputs = [torch.randn(2, 4, 12, 10, requires_grad=True) for _ in range(7)]
    labels = torch.randint(0, 4, (2, 12, 10))
    ignored = torch.rand(labels.shape) < share
    loss = DeepSupervisionLoss(4, region_weight=0.7, ignored=IGNORED)

    def target(labels: torch.Tensor) -> torch.Tensor:
        if not soft:
            return labels.where(~ignored, IGNORED)
        return torch.nn.functional.one_hot(labels, 4).permute(0, 3, 1, 2).float() * ~ignored[:, None]

    total, fused = loss(outputs, target(labels))
    total.backward()
    for output in outputs:
        assert output.grad is not None
        assert output.grad.isfinite().all()
        assert not output.grad.permute(0, 2, 3, 1)[ignored].any()
    total, fused = total.detach(), fused.detach()
    changed = [output.detach() + 9 * torch.randn_like(output) * ignored[:, None] for output in outputs]
    assert [float(value) for value in loss(changed, target(labels))] == pytest.approx([float(total), float(fused)])
    if share == 1:
        assert (float(total), float(fused)) == (0, 0)
        return
    # As if they were not there.
    rest = [output.detach().permute(1, 0, 2, 3)[:, ~ignored][None, :, :, None] for output in outputs]
    wanted = loss(rest, labels[~ignored][None, :, None])
    assert [float(total), float(fused)] == pytest.approx([float(value) for value in wanted], rel=1e-5)


def test_ignored_pixels_do_not_change_the_figures() -> None:
    torch.manual_seed(0)
    truth, prediction = torch.zeros(60, 80, dtype=torch.uint8), torch.zeros(60, 80, dtype=torch.uint8)
    truth[10:40, 10:60], prediction[12:43, 8:58] = 1, 1
    truth[20:50, 30:70] = IGNORED
    other = prediction.clone()
    other[20:50, 30:70] = torch.randint(0, 4, (30, 40), dtype=torch.uint8)
    for figures in (confusion_matrix, boundary_overlap):
        assert torch.equal(figures(truth, prediction, 4), figures(truth, other, 4))
    assert confusion_matrix(truth, prediction, 4).sum() == (truth != IGNORED).sum()
    # Where a class meets them is no contour, so that all it says of the left half is what it says of the whole.
    whole = torch.full((60, 80), 1, dtype=torch.uint8)
    half = whole.clone()
    half[:, 40:] = IGNORED
    inner = boundary_overlap(whole, whole, 4)[1]
    assert boundary_overlap(half, whole, 4)[1].tolist() == (inner // 2).tolist()


def test_ignored_pixels_are_grey_in_pictures() -> None:
    labels = np.zeros((10, 10), np.uint8)
    labels[:5], labels[5:, :5] = IGNORED, 2
    drawn = colour(torch.from_numpy(labels)[None], CLOTHES.palette)[0].permute(1, 2, 0).numpy()
    sheet = panel("", Image.new("RGB", (10, 10)), labels, labels, CLOTHES.palette)
    truth = np.asarray(sheet)[22 : 22 + PANEL_HEIGHT, 2 * 8 + PANEL_HEIGHT : 2 * 8 + 2 * PANEL_HEIGHT]
    for picture in (drawn, truth):
        side = len(picture)
        assert tuple(picture[side // 4, side // 4]) == NO_CLASS
        assert tuple(picture[3 * side // 4, side // 4]) == CLOTHES.palette[2]
        assert tuple(picture[3 * side // 4, 3 * side // 4]) == (0, 0, 0)


def test_training_and_measuring_do_not_see_what_is_ignored(
    photo_folder: PhotoFolder, train_flags: TrainFlags, tmp_path: Path, clothes_weights: Path
) -> None:
    index = read_annotations(photo_folder.csv)
    sums, figures = {}, {}
    changes = ["--region_loss=0.5", "--augment_recolor=0.5", "--mixup=0.4"]
    for value in (255, 7):
        labels = write_labels(index, tmp_path / str(value), hole(value))
        more = [f"--df_path={labels}", f"--ignore_index={value}"]
        flags = train_flags("--iter=1", f"--name={value}", "--val_fraction=0.3", "--val_freq=1", *more, *changes)
        assert train.main(flags) == 0
        sums[value] = state_of(tmp_path, str(value))["weights_sha256"]
        out = tmp_path / f"{value}.json"
        flags = [f"--checkpoint={clothes_weights}", f"--image_folder={photo_folder.images}", "--device=cpu", *more]
        pictures = ["--gallery=1", f"--pictures={tmp_path}"] if value == 7 else []
        assert evaluate.main([*flags, f"--json={out}", "--max_dataset_size=2", *pictures]) == 0
        figures[value] = json.loads(out.read_text())
    assert sums[255] == sums[7]
    assert figures[255] == figures[7]
    assert np.sum(figures[255]["confusion"]) == 2 * (60 * 80 - 20 * 30)


def test_photos_of_which_nothing_counts_are_no_failure(
    photo_folder: PhotoFolder, train_flags: TrainFlags, tmp_path: Path, clothes_weights: Path
) -> None:
    labels = tmp_path / "labels"
    write_labels(read_annotations(photo_folder.csv), labels, lambda drawn, path: grey(np.full_like(drawn, 9), path))
    flags = train_flags("--iter=1", f"--df_path={labels}", "--ignore_index=9", "--val_fraction=0.3")
    assert train.main([*flags, "--region_loss=1", f"--teacher={clothes_weights}"]) == 0


def test_a_changed_label_file_is_a_bad_photo_and_other_labels_have_other_squares(
    photo_folder: PhotoFolder, tmp_path: Path
) -> None:
    index = read_annotations(photo_folder.csv)
    labels = write_labels(index, tmp_path / "labels")
    before = checked(labels, photo_folder.images).photos
    palette()(np.zeros((80, 60), np.uint8), labels / "001.png")
    after = checked(labels, photo_folder.images).photos
    assert (before.digests != after.digests).tolist() == [number == 1 for number in range(8)]
    (labels / "001.png").write_bytes(b"cut off")
    with pytest.raises(DataError, match=r"001.png: expected a PNG, found a file in no format that Pillow knows"):
        LabelledPhotos(after, photo_folder.images)[1]


def test_a_picture_is_read_strip_by_strip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(0)
    drawn = draw.integers(0, 4, (40, 30)).astype(np.uint8)
    for name, writer in WRITERS.items():
        writer(drawn, tmp_path / f"{name}.png")
    whole = [merge(read_annotations(tmp_path)[number].masks, (40, 30)) for number in range(len(WRITERS))]
    monkeypatch.setattr("data.png_labels.STRIP", 130)
    for number, labels in enumerate(whole):
        np.testing.assert_array_equal(labels, merge(read_annotations(tmp_path)[number].masks, (40, 30)))
