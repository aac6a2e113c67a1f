import csv

import numpy as np
import pytest
from conftest import ROOT

from cloth_segmentation.classes import CLASSES, CLOTHES, PALETTE, ClassSet
from cloth_segmentation.logits import summed
from data.categories import CATEGORIES, SHIPPED


def test_categories_are_those_of_imaterialist() -> None:
    with (ROOT / "tests" / "facts" / "imaterialist_categories.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == list(CATEGORIES)
    wanted = {"upperbody": "upper body", "lowerbody": "lower body", "wholebody": "full body"}
    for row in rows:
        # The original was off by one: vest became lower body, skirt full body, cape background.
        class_name = CLASSES[CLOTHES.number_of(row["name"])]
        assert class_name == wanted.get(row["supercategory"], "background"), row["name"]


def test_palette_is_the_original_one() -> None:
    assert PALETTE == ((0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0))


def test_people_may_name_a_class_by_its_first_word() -> None:
    assert CLOTHES.short_names == ("background", "upper", "lower", "full")
    for number, name in enumerate(CLASSES):
        assert CLOTHES.number(name) == CLOTHES.number(name.split()[0]) == number
    with pytest.raises(ValueError, match=r"expected a class \(background, .*, full body\), found 'body'"):
        CLOTHES.number("body")


def test_classes_that_share_their_first_word_are_named_by_all() -> None:
    classes = ClassSet.of_names(("background", "long coat", "Long dress / gown", "t-shirt"))
    assert classes.short_names == ("background", "long-coat", "Long-dress-gown", "t")
    assert classes.number("long-coat") == 1


def test_sets_that_come_along_tell_the_categories_apart() -> None:
    assert {name: len(classes) for name, classes in SHIPPED.items()} == {
        "clothes": 4,
        "garments": 14,
        "garments_and_accessories": 26,
        "fashion": 47,
    }
    for name, classes in SHIPPED.items():
        assert ClassSet.read(classes.to_dict()) == classes
        assert len(set(classes.short_names)) == len(set(classes.palette)) == len(classes)
        if name == "clothes":
            continue
        assert classes.coarser == CLOTHES
        for category in CATEGORIES:
            own = classes.number_of(category)
            if own:  # each is a class of its own, within the class of clothes that the four have it in
                assert classes.names[own] == category
                assert classes.within[own] == CLOTHES.number_of(category)
            else:
                assert CLOTHES.number_of(category) == 0
    assert [SHIPPED["fashion"].number_of(category) for category in CATEGORIES] == list(range(1, 47))


def test_logits_of_coarser_classes_stand_for_the_sum_of_probabilities() -> None:
    logits = np.random.default_rng(4).normal(0, 30, (2, 5, 4, 3)).astype(np.float32)

    def softmax(values: np.ndarray) -> np.ndarray:
        powers = np.exp(values.astype(np.float64) - values.max(1, keepdims=True))
        return powers / powers.sum(1, keepdims=True)

    shares = softmax(logits)
    coarse = softmax(summed(logits, (0, 1, 1, 3, 1), 4))
    expected = np.stack([shares[:, 0], shares[:, [1, 2, 4]].sum(1), np.zeros((2, 4, 3)), shares[:, 3]], axis=1)
    np.testing.assert_allclose(coarse, expected, atol=1e-6)
    np.testing.assert_allclose(softmax(summed(logits, range(5), 5)), shares, atol=1e-6)
    last = softmax(summed(logits, (0, 1, 1, 2, 1), 4))[:, 3]  # in which none lies
    np.testing.assert_allclose(last, np.zeros((2, 4, 3)), atol=1e-6)
