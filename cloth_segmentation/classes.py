"""Class sets: what a network can tell apart, by name and colour, and what it learns from. They travel with weights."""

import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from cloth_segmentation.colors import Color, make_colors

BACKGROUND = "background"
"""Class 0 of every set."""

MOST_CLASSES = 256
"""Label maps are bytes."""

FEW_CLASSES = 8
"""Classes that tables, legends and matrices show all, and large; of more, what is seen, or smaller."""

LONGEST_NAME = 80
"""Letters of a class's name, which becomes a part of file names."""


@dataclass(frozen=True)
class ClassSet:
    """What a network can tell apart. A class's position is its value in a label map; the first one is background.

    Raises:
        ValueError: classes do not fit together: two share a name, a colour or a category, ...
    """

    name: str
    """Of the set."""

    names: tuple[str, ...]

    palette: tuple[Color, ...]
    """RGB colour of each class, 0 to 255, in masks and pictures."""

    categories: tuple[tuple[str, ...], ...]
    """Names of the categories, in labels, that belong to each class. What belongs to none is background."""

    coarser: "ClassSet | None" = None
    """A set in whose classes these classes lie."""

    within: tuple[int, ...] = ()
    """The class of ``coarser`` in which each class lies; empty without one."""

    def __post_init__(self) -> None:
        for words, found in ((self.names, "names"), (self.palette, "colours"), (self.short_names, "short names")):
            if len(words) != len(self.names):
                raise ValueError(f"expected {len(self.names)} {found}, one for each class, found {len(words)}")
            folded = Counter(plain(word) if isinstance(word, str) else word for word in words)
            if twice := [str(word) for word, times in folded.items() if times > 1]:
                raise ValueError(f"expected classes with {found} of their own, found {twice[0]} twice")
        if not self.name.isprintable():
            raise ValueError(f"expected a name for the set without control characters, found {self.name[:80]!r}")
        if self.names[:1] != (BACKGROUND,) or not 2 <= len(self.names) <= MOST_CLASSES:
            raise ValueError(
                f"expected background and 1 to {MOST_CLASSES - 1} other classes, found {len(self.names)}, "
                f"{', '.join(self.names[:3])}, ..."
            )
        if len(self.categories) != len(self.names):
            raise ValueError(f"expected categories of {len(self.names)} classes, found those of {len(self.categories)}")
        times = Counter(plain(category) for group in self.categories for category in group)
        if several := [category for category, count in times.items() if count > 1]:
            raise ValueError(f"expected each category in one class, found {several[0]!r} in several")
        classes = len(self.coarser.names) if self.coarser else 0
        if len(self.within) != (len(self.names) if self.coarser else 0) or not all(
            0 <= number < classes for number in self.within
        ):
            raise ValueError("expected one class of the coarser set for each class, found others")

    @classmethod
    def of_names(cls, names: Sequence[str], name: str = "") -> "ClassSet":
        """A set of which no more is known than the names of its classes, background first. Raises ValueError."""
        colors = ((0, 0, 0), *make_colors([(0, 0, 0)], len(names) - 1))
        return cls(name, tuple(names), colors, ((), *((own,) for own in names[1:])))

    @classmethod
    def read(cls, stated: Mapping[str, Any]) -> "ClassSet":
        """A set from ``to_dict``'s form, whose content is not to be trusted.

        Raises:
            ValueError: something is missing, or is not what it should be.
        """
        if not isinstance(stated, Mapping):
            raise ValueError(f"expected a class set, found {type(stated).__name__}")
        if missing := [key for key in ("name", "names", "palette", "categories") if key not in stated]:
            raise ValueError(f"expected a class set, found one without {', '.join(missing)}")
        name, names, palette, categories = (stated[key] for key in ("name", "names", "palette", "categories"))
        within = stated.get("within", ())
        right = (
            all(isinstance(each, list | tuple) for each in (names, palette, categories, within))
            and all(isinstance(each, list | tuple) for each in (*palette, *categories))
            and all(isinstance(text, str) for text in (name, *names, *(each for group in categories for each in group)))
            and all(len(color) == 3 and all(_whole(value, 255) for value in color) for color in palette)
            and all(_whole(number, MOST_CLASSES) for number in within)
        )
        if not right:
            raise ValueError("expected texts, colours of 0 to 255 and numbers of classes in a class set, found others")
        try:
            coarser = None if stated.get("coarser") is None else cls.read(stated["coarser"])
        except RecursionError as error:
            raise ValueError("expected a class set, found one that lies within too many others") from error
        colors = tuple((red, green, blue) for red, green, blue in palette)
        return cls(name, tuple(names), colors, tuple(map(tuple, categories)), coarser, tuple(within))

    def to_dict(self) -> dict[str, Any]:
        """The set in texts, numbers and lists: what JSON and weights files can hold."""
        own: dict[str, Any] = {
            "name": self.name,
            "names": list(self.names),
            "palette": [list(color) for color in self.palette],
            "categories": [list(group) for group in self.categories],
        }
        if self.coarser:
            own |= {"coarser": self.coarser.to_dict(), "within": list(self.within)}
        return own

    def __len__(self) -> int:
        return len(self.names)

    @property
    def clothes(self) -> tuple[str, ...]:
        """Names of all classes but background."""
        return self.names[1:]

    @cached_property
    def short_names(self) -> tuple[str, ...]:
        """What people call each class, and files are called: its first word, "upper" for "upper body".

        Where two classes share that, all words, joined by hyphens.
        """
        words = [words_of(name) for name in self.names]
        for name, found in zip(self.names, words, strict=True):
            if not found or len(name) > LONGEST_NAME or not name.isprintable():
                raise ValueError(
                    f"expected names of at most {LONGEST_NAME} letters, found {name[: 2 * LONGEST_NAME]!r}"
                )
        first = Counter(found[0].casefold() for found in words)
        return tuple(found[0] if first[found[0].casefold()] == 1 else "-".join(found) for found in words)

    def short_name(self, name: str) -> str:
        """What people call a class of this name. Raises ValueError if there is none."""
        return self.short_names[self.number(name)]

    def number(self, name: str) -> int:
        """Number of a class that is named in full, "upper body", or in short, "upper".

        Raises:
            ValueError: there is no such class.
        """
        for names in (self.names, self.short_names):
            if name in names:
                return names.index(name)
        raise ValueError(
            f"expected a class ({', '.join(self.names)}), found {name!r}; the short names are enough: "
            f"{', '.join(self.short_names[1:])}"
        )

    @cached_property
    def numbers_of_categories(self) -> dict[str, int]:
        """{category as ``plain`` spells it: number of its class}.

        A class may also be labelled by its own name, and by a part of a name that lists several: "shirt, blouse".
        """
        known = {plain(category): number for number, group in enumerate(self.categories) for category in group}
        for number, name in enumerate(self.names):
            known.setdefault(plain(name), number)
        parts = [(plain(part), number) for name, number in known.items() if "," in name for part in name.split(",")]
        for part, number in parts:
            known.setdefault(part, number)
        known.pop("", None)
        return known

    def number_of(self, category: str) -> int:
        """Number of the class of a category; 0, background, for one that belongs to none."""
        return self.numbers_of_categories.get(plain(category), 0)

    def changes_since(self, before: "ClassSet") -> list[str]:
        """What is otherwise than in another set of the same names, in words: "categories of jeans"."""
        told = []
        for what, now, then in (
            ("categories", self.categories, before.categories),
            ("colours", self.palette, before.palette),
            ("places in the coarser set", self.within, before.within),
        ):
            if len(now) != len(then):
                told.append(what)
            elif changed := [name for name, one, other in zip(self.names, now, then, strict=False) if one != other]:
                told.append(f"{what} of {', '.join(changed)}")
        return told

    @property
    def torn(self) -> tuple[int, int] | None:
        """Two classes into which networks tear one garment most often, though no garment is both; None for none."""
        return (self.number("upper body"), self.number("full body")) if set(self.names) >= TORN else None


TORN = {"upper body", "full body"}


def words_of(name: str) -> list[str]:
    """The words of a class's name: letters with their accents, digits and underscores."""
    text = unicodedata.normalize("NFC", name)
    # Vowels of some scripts, Hindi's and Thai's for two, are marks and no letters.
    kept = (each if each.isalnum() or each == "_" or unicodedata.category(each) in MARKS else " " for each in text)
    return [word for word in "".join(kept).split() if any(each.isalnum() or each == "_" for each in word)]


MARKS = {"Mn", "Mc"}
"""Categories of what Unicode combines with the letter before."""


def plain(category: str) -> str:
    """The name of a category without what spellings differ in: case, blanks around it, and how accents are composed."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", category.strip()).casefold())


def _whole(value: object, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most


# The categories are the first 13 of iMaterialist (Fashion) 2019; data/categories.py has the others.
CLOTHES = ClassSet(
    "clothes",
    (BACKGROUND, "upper body", "lower body", "full body"),
    ((0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0)),
    (
        (),
        ("shirt, blouse", "top, t-shirt, sweatshirt", "sweater", "cardigan", "jacket", "vest"),
        ("pants", "shorts", "skirt"),
        ("coat", "dress", "jumpsuit", "cape"),
    ),
)
"""The original's classes, and those of all weights that name no others."""

CLASSES, PALETTE = CLOTHES.names, CLOTHES.palette
