"""The values of a JSON file one after another, with their places: a file of any size, never all of it in memory."""

import json
import re
from codecs import BOM_UTF8
from collections.abc import Iterator
from itertools import count
from typing import Any, BinaryIO, NamedTuple

CHUNK = 2**22
"""Bytes that are read at once."""

LARGEST = 2**27
"""Bytes that one value may have: a picture of 100 MB in base64."""

_BLANKS = re.compile(r"[ \t\r\n]*")
_AFTER = re.compile(r"[ \t\r\n,:\]}]")
_DECODER = json.JSONDecoder()


class Span(NamedTuple):
    """A value in the top-level object, or an element of an array in it, and where it is."""

    key: str  # in the object; "" where the top level is an array
    number: int | None  # position in the array, from 0; None: it is no element
    offset: int  # bytes from the start of the file
    content: bytes  # the value as it is written
    value: Any


def json_spans(file: BinaryIO) -> Iterator[Span]:
    """Yield the values of a JSON file in UTF-8, in its order. None of them is kept.

    Where a value of the top-level object is an array, an empty list comes first, and then each element. Other values
    come whole. Bytes that are no UTF-8 come through as surrogates, as they do in the names of files.

    Raises:
        ValueError: this is no JSON. What comes before the wrong place is yielded first.
    """
    window = _Window(file)
    if window.next() == "[":
        yield from _array(window, "")
    elif window.take("{") and not window.skip("}"):
        while True:
            key = window.value("", None).value
            if not isinstance(key, str):
                raise ValueError(f"expected JSON with texts as keys, found the key {str(key)[:40]}")
            window.take(":")
            if window.next() == "[":
                yield from _array(window, key)
            else:
                yield window.value(key, None)
            if window.take(",}") == "}":
                break
    if window.next():
        raise window.fault("the end of the file")


def _array(window: "_Window", key: str) -> Iterator[Span]:
    offset = window.offset
    window.take("[")
    yield Span(key, None, offset, b"[", [])
    if window.skip("]"):
        return
    for number in count():
        yield window.value(key, number)
        if window.take(",]") == "]":
            return


class _Window:
    """The part of a file that is in memory."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        begin = file.read(len(BOM_UTF8))
        self._text = begin.removeprefix(BOM_UTF8).decode("latin-1")  # in which a character is a byte
        self._start = len(begin) - len(self._text)  # bytes of the file before the text
        self._at = 0  # what comes next in the text

    @property
    def offset(self) -> int:
        """Bytes of the file before what comes next."""
        return self._start + self._at

    def next(self) -> str:
        """The character that comes next after blanks; "" at the end."""
        while True:
            found = _BLANKS.match(self._text, self._at)
            self._at = found.end() if found else self._at
            if self._at < len(self._text) or not self._more():
                return self._text[self._at : self._at + 1]

    def take(self, expected: str) -> str:
        """Go past the next character, which is one of those expected. Raises ValueError if it is not."""
        found = self.next()
        if not found or found not in expected:
            raise self.fault(" or ".join(expected))
        self._at += 1
        return found

    def skip(self, character: str) -> bool:
        """Go past a character if it comes next."""
        there = self.next() == character
        self._at += there
        return there

    def value(self, key: str, number: int | None) -> Span:
        """Go past the next value. Raises ValueError if there is none."""
        self.next()
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:  # it may go on in the file
                if self._more():
                    continue
                self._at = error.pos
                raise self.fault("a value") from error
            except RecursionError as error:
                raise ValueError(
                    f"expected JSON, found values within values, too many to be read, at byte {self.offset:,}"
                ) from error
            except ValueError as error:
                raise ValueError(f"expected JSON, found a number of too many digits at byte {self.offset:,}") from error
            # Where the text ends within a number, its first digits are one too.
            if _AFTER.match(self._text, end) or not self._more():
                break
        content = self._text[self._at : end].encode("latin-1")
        if not content.isascii():
            value = json.loads(content.decode(errors="surrogateescape"))
        span = Span(key, number, self.offset, content, value)
        self._at = end
        return span

    def fault(self, expected: str) -> ValueError:
        """What is wrong with what comes next."""
        found = self._text[self._at : self._at + 20].encode("latin-1").decode(errors="replace")
        what = repr(found) if found else "the end of the file: it is cut off"
        return ValueError(f"expected JSON with {expected} at byte {self.offset:,}, found {what}")

    def _more(self) -> bool:
        """Read on; False at the end of the file. As much again as there is, so long values take few attempts."""
        left = len(self._text) - self._at
        new = self._file.read(max(CHUNK, left)) if left <= LARGEST else b""
        if not new:
            return False
        self._start, self._text, self._at = self.offset, self._text[self._at :] + new.decode("latin-1"), 0
        return True


def short_json(value: object, limit: int = 40) -> str:
    """A value in JSON for a message: the beginning, if it is long."""
    if isinstance(value, list):  # which may be long
        value = value[:limit]
    try:
        text = json.dumps(value)
    except (RecursionError, ValueError):
        return "many values within values"
    return text if len(text) <= limit else text[:limit] + "..."
