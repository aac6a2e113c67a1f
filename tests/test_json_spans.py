"""JSON that is read value by value: what comes out is what json.load reads, with the places."""

import io
import json
from typing import Any

import pytest

from data import json_spans as module
from data.json_spans import json_spans

DOCUMENT = {
    "caf\u00e9": [1, -2.5e3, "a\"]}\\", None, True, {"nested": [[], {}]}, [[1], [2]], "\u00e9\u4e2d\U0001f457"],
    "empty": [], "": {"a": [1, 2]}, "number": 12345, "text": "x" * 500,
}  # fmt: skip


def rebuilt(content: bytes) -> dict[str, Any]:
    """The document, after a look at each value's place."""
    found: dict[str, Any] = {}
    for span in json_spans(io.BytesIO(content)):
        if span.number is None:
            found[span.key] = span.value
        else:
            assert span.number == len(found[span.key])
            found[span.key].append(span.value)
        assert content[span.offset : span.offset + len(span.content)] == span.content
        if span.content != b"[":
            assert json.loads(span.content) == span.value
    return found


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 64, 2**22])
@pytest.mark.parametrize("ascii", [True, False])
@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("begin", [b"", b"\xef\xbb\xbf", b"\xef\xbb\xbf \r\n\t"])
def test_values_and_places_are_right(
    chunk: int, ascii: bool, indent: int | None, begin: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHUNK", chunk)
    content = begin + json.dumps(DOCUMENT, ensure_ascii=ascii, indent=indent).encode() + b"\n"
    assert rebuilt(content) == DOCUMENT
    for document in ([], {}, {"a": []}, [1], [{"a": 1}, "b"]):
        found = rebuilt(begin + json.dumps(document, indent=indent).encode())
        assert found == (document if isinstance(document, dict) else {"": document})


def test_bytes_that_are_no_utf_8_come_through() -> None:
    (span,) = json_spans(io.BytesIO(b'{"name": "caf\xe9 \xc3\xa9 \\u00e9"}'))
    assert span.value == "caf\udce9 \u00e9 \u00e9"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "expected JSON with { at byte 0, found the end of the file: it is cut off"),
        (b"12", "expected JSON with { at byte 0, found '12'"),
        (b'{"a": [1, 2', "expected JSON with , or ] at byte 11, found the end of the file: it is cut off"),
        (b'{"a": "text', "expected JSON with a value at byte 6, found '\"text'"),
        (b'{"a": [1, 2,]}', "expected JSON with a value at byte 12, found ']}'"),
        (b'{"a": 1,}', "expected JSON with a value at byte 8, found '}'"),
        (b'{"a" 1}', "expected JSON with : at byte 5, found '1}'"),
        (b"{1: 2}", "expected JSON with texts as keys, found the key 1"),
        (b'{"a": {"b": nul}}', "expected JSON with a value at byte 12, found 'nul}}'"),
        (b'{"a": 1} {"a": 2}', "expected JSON with the end of the file at byte 9, found '{\"a\": 2}'"),
        (b'{"a": ' + b"[" * 200_000, "expected JSON, found values within values, too many to be read, at byte 7"),
        (b'{"a": ' + b'{"a":' * 200_000, "expected JSON, found values within values, too many to be read, at byte 6"),
        (b'{"a": ' + b"9" * 5000 + b"}", "expected JSON, found a number of too many digits at byte 6"),
    ],
)
def test_what_is_no_json_is_named(content: bytes, words: str) -> None:
    with pytest.raises(ValueError, match="expected ") as error:
        list(json_spans(io.BytesIO(content)))
    assert str(error.value).startswith(words)


def test_a_value_without_end_is_not_read_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK", 16)
    monkeypatch.setattr(module, "LARGEST", 64)
    file = io.BytesIO(b'{"a": [1, "' + b"x" * 10_000 + b'"]}')
    with pytest.raises(ValueError, match="expected JSON with a value at byte 10"):
        list(json_spans(file))
    assert file.tell() < 400
