import pickle
from pathlib import Path

import numpy as np
import pytest
from conftest import CCP, PhotoFolder, needs_ccp

from cloth_segmentation.classes import CLOTHES, ClassSet
from cloth_segmentation.errors import DataError
from data import rle
from data.annotations import Annotations, Instance
from data.categories import CATEGORIES
from data.labels import read_annotations, scan

HEADER = "ImageId,EncodedPixels,Height,Width,ClassId\n"


def index_of(tmp_path: Path, text: str | bytes) -> Annotations:
    path = tmp_path / "train.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_annotations(path)


def stored(index: Annotations, number: int) -> tuple[str, int, int, list[Instance]]:
    return str(index.names[number]), *index.size(number), index.instances(number)


def test_photos_and_masks_come_back(photo_folder: PhotoFolder) -> None:
    index = read_annotations(photo_folder.csv)
    assert list(index.names) == list(photo_folder.masks)
    for number, (name, instances) in enumerate(photo_folder.masks.items()):
        photo = index[number]
        assert (photo.name, photo.height, photo.width) == (name, 80, 60)
        wanted = [CLOTHES.number_of(CATEGORIES[int(class_id.split("_")[0])]) for class_id, _ in instances]
        assert [label for label, _ in photo.masks] == wanted
        for instance, (_, mask) in zip(index.instances(number), instances, strict=True):
            np.testing.assert_array_equal(rle.decode(instance.content.decode(), mask.shape), mask)


def test_rows_of_a_photo_need_not_stand_together_and_others_than_clothes_are_background(tmp_path: Path) -> None:
    index = index_of(tmp_path, HEADER + "b.jpg,1 2,9,5,6\na.jpg,3 4,4,4,23_1\nb.jpg,5 6,9,5,0_12_44\na.jpg,,4,4,10\n")
    assert list(index.names) == ["b.jpg", "a.jpg"]
    assert stored(index, 0) == ("b.jpg", 5, 9, [(2, "line 2", b"1 2"), (1, "line 4", b"5 6")])
    assert stored(index, 1) == ("a.jpg", 4, 4, [(3, "line 5", b"")])


def test_a_category_may_be_named_in_full(tmp_path: Path) -> None:
    rows = 'a.jpg,1 2,4,4,"shirt, blouse"\na.jpg,3 2,4,4,Hand Bag_2\na.jpg,5 2,4,4,full body\na.jpg,7 2,4,4,10_1\n'
    (tmp_path / "train.csv").write_text(HEADER + rows)
    bags = ClassSet.of_names(("background", "hand bag_2", "dress", "full body"), "bags")
    for classes, labels in ((CLOTHES, [1, 3, 3]), (bags, [1, 3, 2])):
        found = scan(tmp_path / "train.csv", classes)
        assert found.photos.labels.tolist() == labels
        assert found.faults == []
        assert found.categories == {"shirt, blouse": 1, "Hand Bag_2": 1, "full body": 1, "dress": 1}


@pytest.mark.parametrize(
    "text",
    [
        "\ufeffImageId,EncodedPixels,Height,Width,ClassId\r\nx.jpg,1 2,9,5,6\r\n\r\n",
        'Width,ClassId,Extra,ImageId,EncodedPixels,Height\n5,6,"a, b",x.jpg,1 2,9',
        '"ImageId","EncodedPixels","Height","Width","ClassId"\n"x.jpg","1 2","9","5","6"\n',
    ],
)
def test_line_ends_quotes_and_columns_may_differ(tmp_path: Path, text: str) -> None:
    assert stored(index_of(tmp_path, text), 0) == ("x.jpg", 5, 9, [(2, "line 2", b"1 2")])


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "found an empty file"),
        ("ImageId,Height\n", "EncodedPixels, Width, ClassId missing"),
        (HEADER, "only a header"),
        (HEADER + "a.jpg,1 2,4,4,0\na.jpg,1 2,4,4\n", "line 3: expected 5 fields, found 4"),
        (
            HEADER + "a.jpg,1 2,4,4,0\na.jpg,1 2,4,4,46\n",
            "wrong ClassId: line 3: expected a whole number from 0 to 45, or the name of a category, found '46'",
        ),
        (HEADER + "a.jpg,1 2,4,4,1e3\n", "found '1e3'"),
        (HEADER + "a.jpg,1 2,4.5,4,0\n", "wrong Height: line 2: "),
        (HEADER + "a.jpg,1 2,4,0,0\n", "wrong Width: line 2: "),
        (HEADER + "a.jpg,1 2,4,4,0\nb.jpg,1 2,4,4,0\na.jpg,1 2,5,4,0\n", "another Height .*line 4"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(DataError, match=complaint):
        index_of(tmp_path, text)


def test_a_worker_gets_positions_not_masks(tmp_path: Path) -> None:
    mask = " ".join(["1 2"] * 5000)
    index = index_of(tmp_path, HEADER + "".join(f"{number}.jpg,{mask},9,5,0\n" for number in range(200)))
    assert (tmp_path / "train.csv").stat().st_size > 3e6
    assert len(pickle.dumps(index)) < 30_000
    assert index.instances(199) == [(1, "line 201", mask.encode())]


def test_selecting_keeps_photos_with_their_masks(photo_folder: PhotoFolder) -> None:
    index = read_annotations(photo_folder.csv)
    chosen = index.select(np.array([5, 0, 7]))
    assert [stored(chosen, number) for number in range(3)] == [stored(index, number) for number in (5, 0, 7)]
    assert [stored(index.head(3), number) for number in range(3)] == [stored(index, number) for number in range(3)]
    assert len(index.head(99)) == len(index)


@needs_ccp
def test_real_annotations() -> None:
    index = read_annotations(CCP / "train.csv")
    assert len(index) == 886
    assert set(index.labels.tolist()) == {1, 2, 3}
