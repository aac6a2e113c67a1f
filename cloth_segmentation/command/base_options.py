"""What all scripts can be told, and how an option is declared and checked."""

import math
import typing
from dataclasses import dataclass, field, fields
from types import NoneType
from typing import Any


class OptionError(ValueError):
    """An option has a value that it cannot have; the message names the flag, what was found and what is expected."""


def option(
    default: Any,
    help: str,
    *,
    choices: tuple[str, ...] = (),
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
    word: bool = False,
    alias: str = "",
) -> Any:
    """A dataclass field with its help line and the values it may have.

    ``word``: it also goes without its flag; ``alias``: another name of its flag.
    """
    limits = {"least": least, "above": above, "most": most, "below": below}
    return field(
        default=default, metadata={"help": help, "choices": choices, "limits": limits, "word": word, "alias": alias}
    )


@dataclass(frozen=True)
class BaseOptions:
    """Options that check themselves. Edit the defaults of a script in its file, or give flags."""

    def __post_init__(self) -> None:
        _check_fields(self)


def option_types(cls: type) -> dict[str, tuple[type, bool]]:
    """{field name: (its type, whether it may be None)}."""
    types = {}
    for name, hint in typing.get_type_hints(cls).items():
        alternatives = typing.get_args(hint) or (hint,)
        types[name] = (next(kind for kind in alternatives if kind is not NoneType), NoneType in alternatives)
    return types


def _check_fields(options: BaseOptions) -> None:
    """Check type, choices and limits of every field, as declared. Raises OptionError."""
    for item in fields(options):
        value = getattr(options, item.name)
        kind, may_be_none = option_types(type(options))[item.name]
        if value is None and may_be_none:
            continue
        wanted = expectation(kind, item.metadata)
        accepted = (int, float) if kind is float else kind
        fits = isinstance(value, accepted) and (kind is bool or not isinstance(value, bool))
        if not fits or not _within(value, item.metadata):
            raise OptionError(f"--{item.name}: expected {wanted}, found {value!r}")


def expectation(kind: type, metadata: typing.Mapping[str, Any]) -> str:
    """What an option takes, in words: "a whole number of at least 1"."""
    if metadata["choices"]:
        return "one of " + ", ".join(metadata["choices"])
    words = {int: "a whole number", float: "a number", str: "a text", bool: "True or False"}[kind]
    names = {"least": "of at least", "above": "above", "most": "of at most", "below": "below"}
    limits = [f"{names[key]} {limit:g}" for key, limit in metadata["limits"].items() if limit is not None]
    return " ".join([words, " and ".join(limits)]).strip()


def _within(value: Any, metadata: typing.Mapping[str, Any]) -> bool:
    if metadata["choices"]:
        return value in metadata["choices"]
    if isinstance(value, str | bool):
        return True
    limits = metadata["limits"]
    return (
        math.isfinite(value)
        and (limits["least"] is None or value >= limits["least"])
        and (limits["above"] is None or value > limits["above"])
        and (limits["most"] is None or value <= limits["most"])
        and (limits["below"] is None or value < limits["below"])
    )
