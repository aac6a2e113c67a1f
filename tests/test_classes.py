import csv

import pytest
from conftest import ROOT

from cloth_segmentation.classes import CLASSES, PALETTE, class_number
from cloth_segmentation.command.infer_options import GARMENTS
from data.categories import CATEGORIES, LABEL_SETS, class_of


def test_categories_are_those_of_imaterialist() -> None:
    with (ROOT / "tests" / "facts" / "imaterialist_categories.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == list(CATEGORIES)
    wanted = {"upperbody": "upper body", "lowerbody": "lower body", "wholebody": "full body"}
    for row in rows:
        # The original was off by one: vest became lower body, skirt full body, cape background.
        assert CLASSES[class_of(int(row["id"]))] == wanted.get(row["supercategory"], "background"), row["name"]


@pytest.mark.parametrize("category", [-1, 46])
def test_other_ids_are_refused(category: int) -> None:
    with pytest.raises(ValueError, match="from 0 to 45"):
        class_of(category)


def test_palette_is_the_original_one() -> None:
    assert PALETTE == ((0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0))


def test_people_may_name_a_class_by_its_first_word() -> None:
    assert tuple(name.split()[0] for name in CLASSES[1:]) == GARMENTS
    for number, name in enumerate(CLASSES):
        assert class_number(name) == class_number(name.split()[0]) == number
    with pytest.raises(ValueError, match=r"expected a class \(background, .*, full body\), found 'body'"):
        class_number("body")


def test_both_label_sets_lead_to_the_same_class() -> None:
    assert LABEL_SETS["classes"].names == CLASSES
    for labels in LABEL_SETS.values():
        assert len(labels.names) == len(labels.classes)
        for category in range(len(CATEGORIES)):
            assert labels.classes[labels.label_of(category)] == class_of(category)
    garments = LABEL_SETS["garments"]
    assert [garments.names[garments.label_of(category)] for category in range(13)] == list(CATEGORIES[:13])
