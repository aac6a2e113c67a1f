"""Class sets by name, or from a file of one's own.

A file is TOML: a table [[class]] for each class but background, in the order of their numbers, 1 first.

    [[class]]
    name = "blazer"
    color = "#cc3311"                     # one is made if it is left out
    categories = ["jacket", "blazer"]     # names in the labels; the class's own if they are left out
"""

import difflib
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from cloth_segmentation.classes import BACKGROUND, LONGEST_NAME, ClassSet, plain, words_of
from cloth_segmentation.colors import Color, make_colors
from cloth_segmentation.errors import DataError
from data.categories import SHIPPED

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

OLD_NAMES = {"classes": "clothes"}
"""What --labels called a set."""

LARGEST = 2**20
"""Bytes of a file; a set of 255 classes has some thousands."""

TOP = {"class", "coarser", "name"}
"""Keys at the top of a file."""

KEYS = {"name", "color", "categories", "within"}
"""Of a class."""


def find_class_set(name: str, beside: Path = Path(), above: tuple[Path, ...] = ()) -> ClassSet:
    """The class set of a name, or in a file.

    Args:
        name: of one of ``SHIPPED``, or path of a file.
        beside: folder from which the path starts.
        above: files that are being read, which lie within this set.

    Raises:
        DataError: there is none, or the file is not as the module's docstring says.
    """
    name = OLD_NAMES.get(name, name)
    if name in SHIPPED:
        return SHIPPED[name]
    path = beside / name
    expected = f"expected {', '.join(SHIPPED)}, or a TOML file that lists classes, found"
    try:
        is_file, is_folder = path.is_file(), path.is_dir()
    except OSError as error:
        raise DataError(f"{expected} {name[:80]!r} ({error.strerror})") from error
    if is_file:
        if path.resolve() in above:
            raise DataError(f"expected sets that lie within others, found that {path} lies within itself")
        return _Reader(path, above).read()
    if name and is_folder:
        raise DataError(f"{expected} the folder {name!r}; name the file in it")
    close = difflib.get_close_matches(name, SHIPPED, n=1)
    hint = f"; did you mean {close[0]}?" if close else ""
    raise DataError(f"{expected} {name[:300]!r}, which is neither{hint}")


def read_class_set(path: Path) -> ClassSet:
    """The class set in a file. Raises DataError if it is not as the module's docstring says."""
    return _Reader(path, ()).read()


class _Reader:
    """Reads one file; keeps its text, to name lines."""

    def __init__(self, path: Path, above: tuple[Path, ...]) -> None:
        self.path, self.above = path, (*above, path.resolve())

    def read(self) -> ClassSet:
        try:
            with self.path.open("rb") as file:
                content = file.read(LARGEST + 1)
        except OSError as error:
            raise DataError(f"{self.path}: expected a file that can be read, found none ({error.strerror})") from error
        if len(content) > LARGEST:
            raise DataError(f"{self.path}: expected a list of classes, found a file of more than {LARGEST:,} bytes")
        try:
            text = content.decode("utf-8-sig").replace("\r\n", "\n")
            self.lines = text.split("\n")
            stated = tomllib.loads(text)
        except UnicodeDecodeError as error:
            raise DataError(f"{self.path}: expected TOML in UTF-8, found other bytes; save it as UTF-8") from error
        except (ValueError, RecursionError) as error:  # also of numbers of more digits than Python takes
            raise DataError(
                f"{self.path}: expected TOML, found text that is none ({error}); each class is written as\n"
                '[[class]]\nname = "blazer"'
            ) from error
        if unknown := sorted(stated.keys() - TOP):
            self._fail(None, unknown[0], f"expected {', '.join(sorted(TOP))}, found the key {unknown[0]!r}")
        tables = stated.get("class")
        if not isinstance(tables, list) or not tables or not all(isinstance(table, dict) for table in tables):
            raise DataError(
                f'{self.path}: expected a table [[class]] for each class, found none; write\n[[class]]\nname = "..."'
            )
        return self._class_set(stated, tables)

    def _class_set(self, stated: Mapping[str, Any], tables: Sequence[Mapping[str, Any]]) -> ClassSet:
        name = stated.get("name", self.path.stem)
        if not isinstance(name, str) or not name or name in SHIPPED:
            self._fail(
                None, "name", f"expected a name for the set that is none of {', '.join(SHIPPED)}, found {name!r}"
            )
        coarser = self._coarser(stated.get("coarser"))
        names = self._names(tables)
        colors = self._colors(tables)
        groups = self._categories(tables, names)
        within = (
            ()
            if coarser is None
            else (0, *(self._within(number, table, coarser) for number, table in enumerate(tables)))
        )
        if coarser is None and (odd := [number for number, table in enumerate(tables) if "within" in table]):
            self._fail(odd[0], "within", 'expected coarser = "..." at the top of the file beside it, found none')
        try:
            return ClassSet(name, (BACKGROUND, *names), ((0, 0, 0), *colors), ((), *groups), coarser, within)
        except ValueError as error:
            raise DataError(f"{self.path}: {error}") from error

    def _names(self, tables: Sequence[Mapping[str, Any]]) -> list[str]:
        names: list[str] = []
        before = {_alike(BACKGROUND): BACKGROUND}
        for number, table in enumerate(tables):
            if unknown := sorted(table.keys() - KEYS):
                self._fail(number, unknown[0], f"expected {', '.join(sorted(KEYS))}, found the key {unknown[0]!r}")
            name = table.get("name")
            if not isinstance(name, str) or not words_of(name) or not name.isprintable() or len(name) > LONGEST_NAME:
                found = f"{name!r:.90}" if "name" in table else "none"
                self._fail(
                    number,
                    "name",
                    f'expected a name of at most {LONGEST_NAME} letters, such as "blazer", found {found}',
                )
            same = before.setdefault(_alike(name), name)
            if same == BACKGROUND:
                self._fail(number, "name", f"expected no class {name!r}, since every set has background; leave it out")
            if len(before) < number + 2:
                self._fail(number, "name", f"expected another name than those before, found {name!r} after {same!r}")
            names.append(name)
        return names

    def _colors(self, tables: Sequence[Mapping[str, Any]]) -> list[Color]:
        """Colours as given, and made ones in the places of the others."""
        given: dict[int, Color] = {}
        for number, table in enumerate(tables):
            if (text := table.get("color")) is None:
                continue
            if not isinstance(text, str) or not re.fullmatch(r"#[0-9a-fA-F]{6}", text):
                self._fail(number, "color", f'expected a colour such as "#cc3311", found {text!r}')
            color = (int(text[1:3], 16), int(text[3:5], 16), int(text[5:7], 16))
            if color in [(0, 0, 0), *given.values()]:
                self._fail(
                    number, "color", f"expected another colour than background and the classes before, found {text!r}"
                )
            given[number] = color
        made = iter(make_colors([(0, 0, 0), *given.values()], len(tables) - len(given)))
        return [given.get(number) or next(made) for number in range(len(tables))]

    def _categories(self, tables: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[tuple[str, ...]]:
        """Names of each class's categories, each once, however it is spelled."""
        owner: dict[str, int] = {}
        groups = []
        for number, (table, name) in enumerate(zip(tables, names, strict=True)):
            found = table.get("categories", [name])
            if not isinstance(found, list) or not all(isinstance(each, str) and plain(each) for each in found):
                expected = 'a list of names such as ["jacket", "blazer"]'
                self._fail(number, "categories", f"expected {expected}, found {found!r:.90}")
            own = {plain(each): each for each in found}
            for key, each in own.items():
                if (other := owner.setdefault(key, number)) != number:
                    self._fail(
                        number,
                        "categories",
                        f"expected each category in one class, found {each!r} in {names[other]!r} too",
                    )
            groups.append(tuple(own.values()))
        return groups

    def _coarser(self, name: object) -> ClassSet | None:
        if name is None:
            return None
        if not isinstance(name, str):
            self._fail(None, "coarser", f'expected the name or file of a class set such as "clothes", found {name!r}')
        try:
            return find_class_set(name, self.path.parent, self.above)
        except DataError as error:
            self._fail(None, "coarser", str(error))

    def _within(self, number: int, table: Mapping[str, Any], coarser: ClassSet) -> int:
        name = table.get("within", BACKGROUND)
        try:
            return coarser.number(name)
        except (ValueError, TypeError):
            self._fail(
                number, "within", f"expected a class of {coarser.name} ({', '.join(coarser.names)}), found {name!r}"
            )

    def _fail(self, number: int | None, key: str, text: str) -> NoReturn:
        """Raise DataError with the line of a key: of class ``number``, or of the top of the file."""
        raise DataError(f"{self.path}: line {self._line(number, key)}, {key}: {text}")

    def _line(self, number: int | None, key: str) -> int:
        """Line, from 1, of a key, or where its table begins."""
        headers = [line for line, text in enumerate(self.lines) if re.match(r"""\s*\[\[\s*["']?class\b""", text)]
        starts = [*headers, len(self.lines)]
        if number is None:
            span = range(starts[0] if key in TOP else len(self.lines))
        elif number < len(headers):
            span = range(*starts[number : number + 2])
        else:  # tables in a list: class = [{...}, {...}]
            braces = [line for line, text in enumerate(self.lines) for _ in range(text.count("{"))]
            span = range(braces[number], braces[number] + 1) if number < len(braces) else range(1)
        named = re.compile(rf"""\s*(\[\[?\s*)?["']?{re.escape(key)}["']?\s*[]=.]""")
        return next((line for line in span if named.match(self.lines[line])), span[0] if span else 0) + 1


def _alike(name: str) -> tuple[str, ...]:
    """What names of classes must differ in, since their short names are made of it: words, whatever their case."""
    return tuple(map(plain, words_of(name)))
