"""The command line of an options dataclass: flags, help, printing and saving."""

import argparse
import difflib
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import MISSING, asdict, fields
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import cloth_segmentation
from cloth_segmentation.command.base_options import BaseOptions, OptionError, expectation, option_types
from cloth_segmentation.command.script import program
from cloth_segmentation.launcher import speaks_for_all

Options = TypeVar("Options")


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line instead of repeating the usage of forty flags."""

    def error(self, message: str) -> NoReturn:
        # Under a launcher every process finds the same mistake; one of them says so.
        if speaks_for_all():
            message = message.removeprefix("argument ")
            command = f"python {self.prog}" if self.prog.endswith(".py") else self.prog
            print(f"{self.prog}: {message}\nSee {command} --help.", file=sys.stderr)
        sys.exit(2)


def parse(cls: type[Options], argv: Sequence[str] | None = None) -> Options:
    """Options from the command line (``sys.argv`` without ``argv``); ends the process with code 2 on a mistake."""
    words = [item.name for item in fields(cls) if item.metadata["word"]]  # type: ignore[arg-type]
    parser = _Parser(
        prog=program(),
        usage=f"%(prog)s [options] {' '.join(f'[{name.upper()}]' for name in words)}" if words else None,
        description=(cls.__doc__ or "").split("\n\n")[0],
        allow_abbrev=False,
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=34, width=110),
    )
    if words:
        parser.add_argument("--version", action="version", version=f"%(prog)s {cloth_segmentation.__version__}")
    types = option_types(cls)
    for item in fields(cls):  # type: ignore[arg-type]
        kind, _ = types[item.name]
        default = "" if item.default in (None, "") else f" [{_shown(item.default)}]"
        word = "; the flag may be left out" if item.metadata["word"] else ""
        help_line = (item.metadata["help"] + word + default).replace("%", "%%")
        if kind is bool:
            parser.add_argument(
                f"--{item.name}", action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS, help=help_line
            )
        else:
            alias = [f"--{item.metadata['alias']}"] if item.metadata["alias"] else []
            parser.add_argument(
                f"--{item.name}",
                *alias,
                type=_converter(kind, item.metadata),
                default=argparse.SUPPRESS,  # so that what was given is known
                metavar={int: "N", float: "X"}.get(kind, "TEXT"),
                help=help_line,
            )
    arguments = list(sys.argv[1:] if argv is None else argv)
    end = arguments.index("--") if "--" in arguments else len(arguments)  # all that follows are words
    found, unknown = parser.parse_known_args(arguments[:end])
    given = vars(found)
    names = [item.name for item in fields(cls)]  # type: ignore[arg-type]
    if wrong := next((argument for argument in unknown if argument.startswith("-")), None):
        parser.error(_unknown(wrong, names))
    free = [name for name in words if name not in given]
    found_words = [*unknown, *arguments[end + 1 :]]
    given |= dict(zip(free, found_words, strict=False))
    if surplus := found_words[len(free) :]:
        parser.error(_surplus(surplus[0], words))
    try:
        return cls(**given)
    except OptionError as error:
        parser.error(str(error))


def describe(options: Any) -> str:
    """A table of all options, one a line; those that are not at their default are marked and show it."""
    width = max(len(item.name) for item in fields(options))
    lines = []
    for item in fields(options):
        value = getattr(options, item.name)
        changed = item.default is not MISSING and value != item.default
        note = f"   (default: {_shown(item.default)})" if changed else ""
        lines.append(f"{'*' if changed else ' '} {item.name:<{width}}  {_shown(value)}{note}")
    return "\n".join(lines)


def save(options: BaseOptions, path: Path) -> None:
    """Write all options as JSON."""
    path.write_text(json.dumps(asdict(options), indent=2) + "\n")


def _converter(kind: type, metadata: Any) -> Callable[[str], Any]:
    def convert(text: str) -> Any:
        try:
            return kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"expected {expectation(kind, metadata)}, found {text!r}") from None

    return convert


def _unknown(argument: str, names: list[str]) -> str:
    if argument.replace("_", "-").startswith("--local-rank"):
        return f"{argument}: unknown option; start torch.distributed.launch with --use_env, or use torchrun"
    name = argument.lstrip("-").split("=")[0]
    close = difflib.get_close_matches(name.lower(), [known.lower() for known in names], n=1)
    hint = next((f"; did you mean --{known}?" for known in names if [known.lower()] == close), "")
    return f"{argument.split('=')[0]}: unknown option{hint}"


def _surplus(word: str, words: Sequence[str]) -> str:
    if not words:
        return f"{word!r}: expected options that begin with --, found a word of its own"
    return f"{word!r}: expected {' and '.join(words)}, each once, and other options with --, found another word"


def _shown(value: Any) -> str:
    return repr(value) if isinstance(value, str) else str(value)
