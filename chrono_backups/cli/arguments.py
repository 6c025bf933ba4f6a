"""The words of the command line: how a verb declares its own, and what all verbs share."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import NoReturn, TypeAlias

from chrono_backups.cli import verbs
from chrono_backups.errors import UsageError
from chrono_backups.identifiers import SOURCE_NAMES, STORAGE_NAMES

Subparsers: TypeAlias = "argparse._SubParsersAction[Parser]"
"""What ``register`` adds the verb to."""


class Parser(argparse.ArgumentParser):
    """An ``ArgumentParser`` that takes no abbreviations and raises ``UsageError`` in place of exiting."""

    def __init__(self, **options: object) -> None:
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(allow_abbrev=False, **options)  # type: ignore[arg-type]

    def error(self, message: str) -> NoReturn:
        raise UsageError(message, hint=f"`{self.prog} --help` shows what is accepted.")


def parse(words: Sequence[str], verb: str, module: object) -> argparse.Namespace:
    """The arguments of ``verb``, whose file is ``module``. Raises ``UsageError``."""
    parser = Parser(prog=verbs.PROGRAM, add_help=False)
    add_global_options(parser, top=True)
    module.register(parser.add_subparsers(dest="verb", parser_class=Parser))  # type: ignore[attr-defined]
    arguments, unknown = parser.parse_known_args(words)
    if unknown:
        raise UsageError(
            f"`{verb}` does not know {' '.join(unknown)}",
            hint=f"`{verbs.PROGRAM} {verb} --help` shows what is accepted.",
        )
    return arguments


def add_verb(
    subparsers: Subparsers,
    verb: str,
    description: str,
    examples: Sequence[tuple[str, str]],
    aliases: Sequence[str] = (),
) -> Parser:
    """The verb's parser, with the options that every verb has. ``examples``: words after the verb, meaning."""
    parser = subparsers.add_parser(
        verb,
        aliases=aliases,
        description=description,
        epilog=f"{_examples(verb, examples)}\n{verbs.EXIT_CODES_HELP}",
    )
    add_global_options(parser)
    return parser


def add_storage_option(parser: argparse.ArgumentParser, meaning: str = "read the repository in this storage") -> None:
    """``--storage NAME``."""
    parser.add_argument(
        "--storage",
        metavar="NAME",
        choices=STORAGE_NAMES,
        help=f"{meaning}: {', '.join(STORAGE_NAMES)} (default: the primary storage)",
    )


def add_source_option(parser: argparse.ArgumentParser) -> None:
    """``--source NAME``, once."""
    parser.add_argument(
        "--source",
        metavar="NAME",
        choices=SOURCE_NAMES,
        help=f"of this source only: {', '.join(SOURCE_NAMES)} (default: wherever PATH is)",
    )


def add_backup_argument(parser: argparse.ArgumentParser, name: str = "id", help_text: str = "") -> None:
    """The positional id of a backup."""
    parser.add_argument(
        name, metavar=name.upper(), help=help_text or "a backup's id, or `latest`: the newest complete one"
    )


def add_global_options(parser: argparse.ArgumentParser, *, top: bool = False) -> None:
    """Accepted before and after the verb; the verb's parser must not reset what came before it."""
    group = parser.add_argument_group("options of every verb") if not top else parser
    default = None if top else argparse.SUPPRESS
    switched_off = False if top else argparse.SUPPRESS
    group.add_argument("--env-file", metavar="FILE", default=default, help="read settings from FILE in place of .env")
    for option, meaning in (
        ("--json", "one JSON document on standard output, and nothing else there"),
        ("--quiet", "no progress and no messages but warnings and errors"),
        ("--debug", "a traceback for every error"),
    ):
        group.add_argument(option, action="store_true", default=switched_off, help=meaning)


def _examples(verb: str, examples: Sequence[tuple[str, str]]) -> str:
    commands = [f"{verbs.PROGRAM} {verb} {words}".rstrip() for words, _ in examples]
    width = max(map(len, commands), default=0)
    lines = [f"  {command:<{width}}  {meaning}" for command, (_, meaning) in zip(commands, examples, strict=True)]
    return "\n".join(["examples:", *lines, ""])
