"""Class sets: files of one's own, the shipped ones, their names and colours, and what weights files state of them."""

import colorsys
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st

from cloth_segmentation.classes import CLOTHES, MOST_CLASSES, ClassSet
from cloth_segmentation.colors import Color, _as_seen, make_colors
from cloth_segmentation.errors import DataError
from data.categories import CATEGORIES, SHIPPED
from data.class_sets import LARGEST, find_class_set, read_class_set

BLACK = (0, 0, 0)


def written(folder: Path, text: str | bytes, name: str = "mine.toml") -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def tables(*names: str, more: str = "") -> str:
    return "".join(f'[[class]]\nname = "{name}"\n{more}' for name in names)


WHOLE = """
coarser = "clothes"
name = "outfits"

[[class]]
name = "blazer"
color = "#cc3311"
categories = ["jacket", "Blazer "]
within = "upper"

  [[ class ]]   # keys may be quoted, and lines indented
  "name" = "jeans"
  'within' = "lower body"

[[class]]
name = "caf\u00e9 apron"
categories = []
"""


def test_a_file_is_read(tmp_path: Path) -> None:
    found = find_class_set(str(written(tmp_path, WHOLE)))
    assert (found.name, found.names) == ("outfits", ("background", "blazer", "jeans", "caf\u00e9 apron"))
    assert found.categories == ((), ("jacket", "Blazer "), ("jeans",), ())
    assert (found.coarser, found.within) == (CLOTHES, (0, 1, 2, 0))
    assert found.palette[:2] == (BLACK, (0xCC, 0x33, 0x11))
    assert found.short_names == ("background", "blazer", "jeans", "caf\u00e9")
    assert [found.number_of(word) for word in ("JACKET", " blazer", "Jeans", "cafe\u0301 apron", "shirt")] == [
        1,
        1,
        2,
        3,
        0,
    ]
    assert ClassSet.read(json.loads(json.dumps(found.to_dict()))) == found


def test_the_example_in_the_docs_is_one(tmp_path: Path) -> None:
    [example] = re.findall(r"```toml\n(.*?)```", (ROOT / "docs" / "classes.md").read_text(), re.DOTALL)
    found = read_class_set(written(tmp_path, example))
    assert (found.name, found.clothes) == ("outfits", ("blazer", "jeans", "summer dress"))
    assert (found.coarser, found.within) == (CLOTHES, (0, 1, 2, 3))


@pytest.mark.parametrize(
    "text",
    [
        tables("a", "b").replace("\n", "\r\n"),
        "\ufeff" + tables("a", "b"),
        'class = [{name = "a"}, {name = "b"}]',
        '[["class"]]\nname = "a"\n[["class"]]\nname = "b"',
        '[[class]]\nname = "a"\ncategories = ["x\u2028y", "z\x7f"]\n'.replace("\x7f", "") + tables("b"),
    ],
)
def test_it_may_be_written_in_other_ways(text: str, tmp_path: Path) -> None:
    found = read_class_set(written(tmp_path, text))
    assert (found.name, found.names, found.coarser) == ("mine", ("background", "a", "b"), None)


def test_the_shipped_sets_are_found_by_name() -> None:
    for name, classes in SHIPPED.items():
        assert find_class_set(name) == classes
    assert find_class_set("classes") == CLOTHES  # as it was called
    assert SHIPPED["fashion"].clothes == CATEGORIES


WRONG = {
    # The file
    "not TOML": (tables("a") + "[[class]\n", r"expected TOML, found text .*line 3.*; each class is written"),
    "JSON": ('{"class": [{"name": "a"}]}', r"expected TOML, found text that is none .*line 1"),
    "CSV": ("ImageId,EncodedPixels,Height,Width,ClassId\na.jpg,1 2,4,4,0\n", r"expected TOML, found text .*line 1"),
    "UTF-16": (tables("a").encode("utf-16"), r"expected TOML in UTF-8, found other bytes; save it as UTF-8"),
    "Latin-1": (tables("caf\u00e9").encode("latin-1"), r"expected TOML in UTF-8"),
    "2 MB": (b"# padding\n" * 200_000, rf"expected a list of classes, found a file of more than {LARGEST:,} bytes"),
    "endless number": (tables("a") + "color = " + "1" * 5000, r"expected TOML, found text that is none"),
    "deep": ("class = " + "[" * 9000, r"expected TOML, found text that is none"),
    "empty": ("", r"expected a table \[\[class\]\] for each class, found none; write"),
    "no classes": ("class = []", r"expected a table \[\[class\]\] for each class, found none; write"),
    "one table": ('[class]\nname = "a"', r"expected a table \[\[class\]\] for each class"),
    "no tables": ("class = [1, 2]", r"expected a table \[\[class\]\] for each class"),
    "256 classes": (tables(*map("c{}".format, range(256))), r"background and 1 to 255 other classes, found 257"),
    # Keys
    "unknown key": (tables("a") + 'colour = "#112233"', r"line 3, colour: expected categories, color, name, within"),
    "unknown key at the top": ("version = 1\n" + tables("a"), r"line 1, version: expected class, coarser, name, found"),
    "unknown table": (tables("a") + "\n[classes]\nb = 1", r"line 4, classes: expected class, coarser, name, found"),
    "set called as a shipped one": ('\nname = "garments"\n' + tables("a"), r"line 2, name: .*found 'garments'"),
    "set without a name": ("name = 3\n" + tables("a"), r"line 1, name: expected a name for the set"),
    # Names
    "no name": (tables("a") + '[[class]]\ncolor = "#112233"', r"line 3, name: expected a name .*, found none"),
    "no name quoted": ('[["class"]]\nname = "a"\n[["class"]]\n', r"line 3, name: expected a name .*, found none"),
    "number for a name": ("[[class]]\n\nname = 3", r"line 3, name: expected a name .*, found 3"),
    "no letters": (tables("a", "?!"), r"line 4, name: expected a name .*, found '\?!'"),
    "control characters": (tables("a\\nb"), r"line 2, name: expected a name .*found 'a\\nb'"),
    "endless name": (tables("x" * 81), r"line 2, name: expected a name of at most 80 letters"),
    "name twice": (tables("a", "b", "A"), r"line 6, name: expected another name .*, found 'A' after 'a'"),
    "one short name": (tables("a b", "a-B"), r"line 4, name: expected another name .* found 'a-B' after 'a b'"),
    "background": (tables("a", "Background"), r"line 4, name: expected no class 'Background', .*; leave it out"),
    "inline": ('class = [\n{name = "a"},\n{name = "a"}]', r"line 3, name: expected another name .*'a' after 'a'"),
    # Colours
    "malformed": (tables("a", "b", more='color = "red"\n'), r"line 3, color: expected a colour .*, found 'red'"),
    "short": (tables("a") + "color = '#123'", r"line 3, color: expected a colour .* found '#123'"),
    "no text": (tables("a") + "color = [1, 2, 3]", r"line 3, color: expected a colour .* found \[1, 2, 3\]"),
    "taken": (tables("a", "b", more='color = "#AA0000"\n'), r"line 6, color: expected another colour .*'#AA0000'"),
    "black": (tables("a") + "  color = '#000000'", r"line 3, color: expected another colour than background"),
    # Categories
    "no list": (tables("a") + "categories = 'x'", r"line 3, categories: expected a list of names .*found 'x'"),
    "no texts": (tables("a") + "categories = [1]", r"line 3, categories: expected a list of names .*found \[1\]"),
    "blank": (tables("a") + "categories = [' ']", r"line 3, categories: expected a list of names"),
    "in two classes": (
        tables("a", "b", more="categories = [\n'x',\n'Y']\n").replace("'Y'", "'y'", 1),
        r"line 8, categories: expected each category in one class, found 'x' in 'a' too",
    ),
    "its own name is another's": (
        tables("a") + "categories = ['B']\n" + tables("b"),
        r"line 4, categories: expected each category in one class, found 'b' in 'a' too",
    ),
    # Sets within sets
    "within alone": (tables("a") + "within = 'upper'", r"line 3, within: expected coarser = \"...\" at the top"),
    "within unknown": (
        "coarser = 'clothes'\n" + tables("a") + "within = 'sock'",
        r"line 4, within: expected a class of clothes \(background, upper body, .*\), found 'sock'",
    ),
    "within a number": ("coarser = 'clothes'\n" + tables("a") + "within = 1", r"line 4, within: .*found 1"),
    "coarser missing": ("coarser = 'none.toml'\n" + tables("a"), r"line 1, coarser: expected clothes, .*'none.toml'"),
    "coarser nearly": ("coarser = 'cloths'\n" + tables("a"), r"line 1, coarser: .*; did you mean clothes\?"),
    "coarser a number": ("coarser = 4\n" + tables("a"), r"line 1, coarser: expected the name or file .* found 4"),
    "coarser endless": (f"coarser = '{'x' * 5000}'\n" + tables("a"), r"line 1, coarser: expected clothes, .*'xxx"),
    "itself": ("\ncoarser = 'mine.toml'\n" + tables("a"), r"line 2, coarser: .* that .*mine.toml lies within itself"),
}  # fmt: skip


@pytest.mark.parametrize("kind", WRONG)
def test_what_is_wrong_is_named_with_line_key_and_remedy(kind: str, tmp_path: Path) -> None:
    text, words = WRONG[kind]
    path = written(tmp_path, text)
    with pytest.raises(DataError) as caught:
        find_class_set("mine.toml", beside=tmp_path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert re.search(words, message), message
    assert len(message) < 700


def test_two_files_that_lie_within_each_other_are_named(tmp_path: Path) -> None:
    written(tmp_path, "coarser = 'sub/b.toml'\n" + tables("a"), "a.toml")
    (tmp_path / "sub").mkdir()
    written(tmp_path / "sub", "coarser = '../a.toml'\n" + tables("b"), "b.toml")
    with pytest.raises(DataError, match=r"a.toml: line 1, coarser: .*b.toml: line 1, coarser: .*lies within itself"):
        find_class_set(str(tmp_path / "a.toml"))


def test_paths_of_coarser_sets_start_at_the_file(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    written(tmp_path / "sub", "coarser = '../rough.toml'\n" + tables("a") + "within = 'all'", "fine.toml")
    written(tmp_path, tables("all"), "rough.toml")
    found = find_class_set("sub/fine.toml", beside=tmp_path)
    assert found.coarser is not None
    assert (found.coarser.names, found.within) == (("background", "all"), (0, 1))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("garmets", r"found 'garmets', which is neither; did you mean garments\?"),
        ("", r"expected clothes, garments, .*, or a TOML file that lists classes, found ''"),
        ("none.toml", r"found 'none.toml', which is neither$"),
        ("x" * 5000, r"found 'x{79}"),
        ("a\0b", r"found 'a\\x00b'"),
    ],
)
def test_a_name_of_none_is_said(name: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=words):
        find_class_set(name, beside=tmp_path)


def test_a_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"found the folder '.*'; name the file in it"):
        find_class_set(str(tmp_path))


def test_a_category_may_be_spelled_twice_in_its_class(tmp_path: Path) -> None:
    assert read_class_set(written(tmp_path, tables("a") + "categories = ['x', 'X ']")).categories[1] == ("X ",)


def colors_of(folder: Path, text: str) -> tuple[Color, ...]:
    return read_class_set(written(folder, text)).palette


def test_colours_left_out_stay_when_a_class_is_added_at_the_end(tmp_path: Path) -> None:
    given = "color = '#ffffcc'\n"  # one that would be made first
    text = tables("a") + tables("b", more=given) + tables("c", "d")
    before = colors_of(tmp_path, text)
    assert colors_of(tmp_path, text + tables("e", "f"))[:5] == before
    assert before[2] == (0xFF, 0xFF, 0xCC)
    assert len(set(before)) == 5


def test_colours_of_255_classes_differ(tmp_path: Path) -> None:
    text = tables("a", more="color = '#4c00ff'\n") + tables(*map("c{}".format, range(254)))
    assert len(set(colors_of(tmp_path, text))) == MOST_CLASSES


def smallest_distance(colors: list[Color]) -> float:
    """Of two colours, and black, in the eyes that tell them apart worst."""
    seen = _as_seen(np.array([BLACK, *colors]))
    distances = np.linalg.norm(seen[:, :, None] - seen[:, None], axis=-1).min(0)
    return float(distances[~np.eye(len(distances), dtype=bool)].min())


def test_people_tell_the_first_colours_apart_whatever_their_eyes() -> None:
    wheel = [tuple(round(255 * value) for value in colorsys.hsv_to_rgb(hue / 12, 1, 1)) for hue in range(12)]
    assert smallest_distance(make_colors([BLACK], 12)) > 0.09 > 5 * smallest_distance(wheel)
    assert make_colors([BLACK], 30)[:12] == make_colors([BLACK], 12)


def test_the_views_are_those_of_the_paper() -> None:
    # Red and green are far apart for most people, and blue and yellow for those who lack a cone of those two.
    red, green, blue, yellow = np.moveaxis(
        _as_seen(np.array([(170, 0, 0), (90, 90, 0), (0, 0, 255), (255, 255, 0)])), 1, 0
    )
    usual, protanope, deuteranope, tritanope = np.linalg.norm(red - green, axis=-1)
    assert usual > 2 * deuteranope
    assert usual > 2 * protanope
    assert tritanope > deuteranope
    assert (np.linalg.norm(blue - yellow, axis=-1)[:3] > 0.5).all()


def test_made_colours_are_seen_over_photos() -> None:
    for color in make_colors([BLACK], 46):
        assert max(color) - min(color) >= 20, color  # no grey
        assert max(color) >= 70, color  # not nearly black


def test_classes_have_short_names() -> None:
    found = ClassSet.of_names(
        ["background", "upper body", "full body", "full length coat", "T-shirt", "\u0160aty, dlouh\u00e9"]
    )
    assert found.short_names == ("background", "upper", "full-body", "full-length-coat", "T", "\u0160aty")
    for number, (name, short) in enumerate(zip(found.names, found.short_names, strict=True)):
        assert found.number(name) == found.number(short) == number
        assert found.short_name(name) == short
        assert found.number_of(name.upper()) == number
    for word in ("coat", "FULL-BODY", ""):
        with pytest.raises(ValueError, match=r"expected a class .*; the short names are enough: upper, full-body"):
            found.number(word)
    assert found.number_of("coat") == 0


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["background"], "expected background and 1 to 255 other classes, found 1"),
        (["a", "b"], "expected background and 1 to 255"),
        ([*["background"], *map("c{}".format, range(256))], "found 257"),
        (["background", "a", "A"], "names of their own, found a twice"),
        (["background", "a b", "a-b"], "short names of their own, found a-b twice"),
        (["background", "?"], "at most 80 letters, found '\\?'"),
        (["background", "red\x1b[31m"], r"at most 80 letters, found 'red\\x1b\[31m'"),
        (["background", "a\nb"], r"at most 80 letters, found 'a\\nb'"),
        (["background", "\u202ecoat"], r"at most 80 letters, found '\\u202ecoat'"),
        (["background", "a\ud800"], r"at most 80 letters, found 'a\\ud800'"),
        (["background", "\uac00", "\u1100\u1161"], "names of their own, found \uac00 twice"),
        (["background", "caf\u00e9", "cafe\u0301"], "names of their own, found caf\u00e9 twice"),
    ],
)
def test_names_that_do_not_go_together_are_refused(names: list[str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ClassSet.of_names(names)


def test_accents_and_vowels_are_parts_of_words(tmp_path: Path) -> None:
    names = ["\u0915\u0940", "\u0915\u093e", "e\u0301t\u00e9 robe", "\u0e01\u0e34", "\u0e01\u0e35"]
    found = ClassSet.of_names(["background", *names])
    assert found.short_names[1:] == (names[0], names[1], "\u00e9t\u00e9", names[3], names[4])
    assert read_class_set(written(tmp_path, tables(*names))).short_names == found.short_names
    with pytest.raises(DataError, match="expected another name than those before"):
        read_class_set(written(tmp_path, tables("caf\u00e9", "cafe\u0301")))


def test_the_name_of_a_set_is_one_line(tmp_path: Path) -> None:
    for name in ("a\nb", "\x1b[31m"):
        with pytest.raises(ValueError, match="expected a name for the set without control characters"):
            ClassSet.read(CLOTHES.to_dict() | {"name": name})
        with pytest.raises(DataError, match="expected a name for the set without control characters"):
            read_class_set(written(tmp_path, f"name = {json.dumps(name)}\n" + tables("a")))


def test_what_has_changed_in_a_set_is_told() -> None:
    garments = SHIPPED["garments"]
    assert garments.changes_since(garments) == []
    swapped = replace(
        garments, categories=((), garments.categories[2], garments.categories[1], *garments.categories[3:])
    )
    assert swapped.changes_since(garments) == [f"categories of {garments.names[1]}, {garments.names[2]}"]
    alone = replace(garments, coarser=None, within=(), palette=((0, 0, 0), (1, 2, 3), *garments.palette[2:]))
    assert alone.changes_since(garments) == [f"colours of {garments.names[1]}", "places in the coarser set"]


def test_a_set_may_have_256_classes() -> None:
    found = ClassSet.of_names(["background", *map("c{}".format, range(255))])
    assert len(found) == 256
    assert ClassSet.read(found.to_dict()) == found
    assert found.number_of("C254") == 255


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 300) | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=12,
)


@pytest.mark.parametrize("value", [5, None, True, "abc", {"a": 1}, [[1, 2]], [None], [["a"], "b"]])
@pytest.mark.parametrize("key", ["name", "names", "palette", "categories", "within"])
def test_what_cannot_be_stated_is_refused(key: str, value: Any) -> None:
    stated = SHIPPED["garments"].to_dict() | {key: value}
    if (key, value) != ("name", "abc"):
        with pytest.raises(ValueError, match="expected "):
            ClassSet.read(stated)
    del stated[key]
    with pytest.raises(ValueError, match="expected "):
        ClassSet.read(stated)


@settings(max_examples=40)
@given(st.data())
def test_what_a_file_states_is_read_or_refused(data: st.DataObject) -> None:
    stated: Any = SHIPPED["garments"].to_dict()
    for _ in range(data.draw(st.integers(1, 3))):  # change what lies at the end of some path
        at = stated
        while True:
            keys = list(at) if isinstance(at, dict) else list(range(len(at)))
            if not keys:
                break
            key = data.draw(st.sampled_from(keys))
            if not isinstance(at[key], dict | list) or not at[key] or data.draw(st.booleans()):
                at[key] = data.draw(json_values)
                break
            at = at[key]
    try:
        found = ClassSet.read(stated)
    except ValueError:
        return
    assert ClassSet.read(found.to_dict()) == found
    assert all(found.number(name) == number for number, name in enumerate(found.names))


@given(json_values)
def test_whatever_is_stated_is_read_or_refused(stated: Any) -> None:
    with pytest.raises(ValueError, match="expected a class set"):
        ClassSet.read(stated)


def test_a_set_within_endless_others_is_refused() -> None:
    stated = CLOTHES.to_dict()
    for _ in range(5000):
        stated = CLOTHES.to_dict() | {"coarser": stated, "within": [0, 1, 2, 3]}
    with pytest.raises(ValueError, match="within too many others"):
        ClassSet.read(stated)


@given(st.lists(st.text(max_size=8), max_size=6))
def test_names_are_taken_or_refused(names: list[str]) -> None:
    try:
        found = ClassSet.of_names(["background", *names])
    except ValueError:
        return
    assert len({*map(str.casefold, found.short_names)}) == len(names) + 1
    assert all(re.fullmatch(r"[\w-]+", short) for short in found.short_names)
    assert [found.number(name) for name in names] == list(range(1, len(names) + 1))
