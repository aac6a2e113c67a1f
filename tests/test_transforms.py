import numpy as np
import pytest
import torch
from PIL import Image

from data.transforms import Augmentation, beside, normalise, squash_labels


def test_pixels_are_scaled_to_minus_one_to_one() -> None:
    pixels = torch.tensor([0, 255, 51], dtype=torch.uint8).view(3, 1, 1).expand(2, 3, 8, 16)
    scaled = normalise(pixels, 0.5, 0.5)
    assert scaled.shape == (2, 3, 8, 16)
    assert scaled.dtype == torch.float32
    torch.testing.assert_close(scaled[1, :, 3, 3], torch.tensor([-1.0, 1.0, -0.6]))


def test_labels_do_not_mix_and_keep_width_and_height_apart() -> None:
    labels = np.zeros((40, 20), dtype=np.uint8)
    labels[:, 10:] = 3
    small = squash_labels(labels, (8, 12))
    assert small.shape == (12, 8)
    assert set(np.unique(small)) == {0, 3}
    assert (small[:, 4:] == 3).all()


LABELS = np.zeros((400, 300), dtype=np.uint8)
"""Clothes of one person."""
LABELS[80:300, 150:200] = 1

ALL = Augmentation(crop=0.5, flip=0.5, scale=0.3, rotate=20, shift=0.1, color=0.2, recolor=0.5)


def scene() -> tuple[torch.Tensor, torch.Tensor]:
    """A label map and a photo that shows it: class 1 is bright, the rest is dark."""
    labels = torch.zeros(64, 64, dtype=torch.uint8)
    labels[10:40, 5:30] = 1
    return (labels * 200 + 20).expand(3, -1, -1).contiguous(), labels


@pytest.mark.parametrize("seed", range(8))
def test_photo_and_labels_change_together(seed: int) -> None:
    geometry = Augmentation(flip=0.5, scale=0.3, rotate=20, shift=0.1)
    pixels, labels = geometry(*scene(), seed)
    inside = pixels[0][labels == 1].float()
    outside = pixels[0][labels == 0].float()
    assert (inside > 150).float().mean() > 0.97
    assert (outside < 150).float().mean() > 0.97
    assert set(labels.unique().tolist()) <= {0, 1}


def test_a_change_depends_on_its_seed_alone() -> None:
    torch.manual_seed(1)
    first = ALL(*scene(), 5)
    state = torch.get_rng_state()
    second = ALL(*scene(), 5)
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
    assert torch.equal(torch.get_rng_state(), state)
    assert ALL.crop_box(LABELS, 5) == ALL.crop_box(LABELS, 5)
    assert any(not torch.equal(first[0], ALL(*scene(), seed)[0]) for seed in range(6, 9))


def test_nothing_changes_unless_asked_for() -> None:
    pixels, labels = scene()
    same = Augmentation()(pixels, labels, 3)
    assert same[0] is pixels
    assert same[1] is labels
    assert Augmentation().crop_box(LABELS, 3) is None


def test_crops_lie_within_the_photo_and_reach_the_share_asked_for() -> None:
    boxes = [Augmentation(crop=0.6).crop_box(LABELS, seed) for seed in range(300)]
    for left, upper, right, lower in boxes:
        assert 0 <= left < right <= 300
        assert 0 <= upper < lower <= 400
    areas = [(box[2] - box[0]) * (box[3] - box[1]) / 120_000 for box in boxes]
    assert 0.15 < min(areas) < 0.2
    assert max(areas) > 0.95


def test_flip_mirrors_always_at_one() -> None:
    pixels, labels = scene()
    flipped = Augmentation(flip=1)(pixels, labels, 0)
    assert torch.equal(flipped[0], pixels.flip(-1))
    assert torch.equal(flipped[1], labels.flip(-1))


def test_portraits_show_the_head_above_the_clothes() -> None:
    boxes = [Augmentation(portrait=1).crop_box(LABELS, seed) for seed in range(300)]
    for left, upper, right, lower in boxes:
        assert 0 <= left < right <= 300
        assert 80 - 0.18 * 400 <= upper <= 80 - 0.08 * 400  # the head; the clothes begin in row 80
        assert 80 + 0.06 * 400 <= lower <= 80 + 0.5 * 400 + 1
        assert left <= 200
        assert right > 150
    few = [Augmentation(portrait=0.3).crop_box(LABELS, seed) for seed in range(300)]
    assert 60 < sum(box is not None for box in few) < 120
    assert Augmentation(portrait=1).crop_box(np.zeros_like(LABELS), 0) is None


@pytest.mark.parametrize("augmentation", [Augmentation(), Augmentation(portrait=0.3), Augmentation(crop=0.3), ALL])
def test_whether_a_photo_is_cropped_is_known_before_it_is_loaded(augmentation: Augmentation) -> None:
    for seed in range(100):
        assert augmentation.crops(seed) == (augmentation.crop_box(LABELS, seed) is not None)


def test_portraits_choose_between_two_people() -> None:
    labels = np.zeros((400, 600), np.uint8)
    labels[100:300, 50:100] = 1
    labels[100:300, 500:550] = 2
    boxes = [Augmentation(portrait=1).crop_box(labels, seed) for seed in range(50)]
    seen = [np.unique(labels[upper:lower, left:right]).tolist() for left, upper, right, lower in boxes]
    assert [0, 1] in seen
    assert [0, 2] in seen


def test_a_portrait_at_the_edge_of_a_tiny_photo_is_not_empty() -> None:
    labels = np.zeros((2, 3), np.uint8)
    labels[1, 2] = 1
    for seed in range(50):
        left, upper, right, lower = Augmentation(portrait=1).crop_box(labels, seed)
        assert 0 <= left < right <= 3
        assert 0 <= upper < lower <= 2


def test_two_photos_side_by_side_keep_their_shape_and_labels() -> None:
    left = Image.new("RGB", (30, 60), "red"), np.full((60, 30), 1, np.uint8)
    right = Image.new("RGB", (50, 120), "blue"), np.full((120, 50), 2, np.uint8)
    photo, labels = beside(left, right)
    assert photo.size == (30 + 25, 60)
    assert labels.shape == (60, 55)
    assert photo.getpixel((29, 30)) == (255, 0, 0)
    assert photo.getpixel((30, 30)) == (0, 0, 255)
    assert (labels[:, :30] == 1).all()
    assert (labels[:, 30:] == 2).all()


def test_partners_come_as_often_as_asked_for() -> None:
    assert all(Augmentation().partner(10, seed) is None for seed in range(50))
    partners = [Augmentation(pair=0.5).partner(10, seed) for seed in range(400)]
    assert 150 < sum(partner is not None for partner in partners) < 250
    assert {partner for partner in partners if partner is not None} == set(range(10))
    assert partners == [Augmentation(pair=0.5).partner(10, seed) for seed in range(400)]


def test_cloth_takes_another_color_and_keeps_its_folds() -> None:
    draw = np.random.default_rng(0)
    pixels = torch.from_numpy(draw.integers(100, 140, (3, 64, 64)).astype(np.uint8))
    labels = torch.zeros(64, 64, dtype=torch.uint8)
    labels[10:30], labels[30:50] = 1, 2
    before = pixels.clone()
    moves = []
    for seed in range(20):
        changed, same = Augmentation(recolor=1)(pixels, labels, seed)
        assert torch.equal(same, labels)
        assert torch.equal(pixels, before)
        assert torch.equal(changed[:, labels == 0], pixels[:, labels == 0])
        cloth = [changed[:, labels == value].float() for value in (1, 2)]
        moves.append(cloth[0].mean(1) - cloth[1].mean(1))
        inner = (cloth[0] > 0) & (cloth[0] < 255)
        if inner.all():  # what was brighter stays brighter
            pair = torch.stack([cloth[0][0], pixels[0, labels == 1].float()])
            assert torch.corrcoef(pair)[0, 1] > 0.99
    assert torch.stack(moves).abs().amax() > 50  # of two garments, each goes its own way
    few = [Augmentation(recolor=0.3)(pixels, labels, seed)[0] for seed in range(100)]
    untouched = sum(torch.equal(changed, pixels) for changed in few)
    assert 30 < untouched < 68  # 0.7 * 0.7 of them
