"""The rules of the tree: what no review should have to look for."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from chrono_backups.cli import exit_codes, verbs

ROOT = Path(__file__).resolve().parent.parent
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())

MOST_LINES, MOST_LINES_OF_A_FUNCTION = 450, 70

# Names of a developer's machine; the checkout's own place is added. Registries are named by settings of those who
# install, never by the project.
_PLACES = re.compile(rf"{re.escape(str(ROOT))}\b|(?<![\w.])/(?:home|Users)/\w+|/root/\.\w+")
_REGISTRIES = re.compile(
    r"\bpy(?:pi|thonhosted)\.org|https?://\S+(?:\.whl|\.tgz|\.deb|/simple)\b|--(?:extra-)?index-url"
)
_UNFINISHED = re.compile(r"\b(?:TO(?:DO)|FIX(?:ME)|X{3})\b|raise NotImplemented(?:Error)")

DOCUMENTS = ["README.md", *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").glob("*.md"))]
_FENCED = re.compile(r"^```(?:sh|console|bash)?\n(.*?)^```", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")


def files() -> list[Path]:
    """What is in git or about to be."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, check=True,
    )  # fmt: skip
    paths = [ROOT / os.fsdecode(name) for name in listed.stdout.split(b"\0") if name]
    return [path for path in paths if path.is_file() and not path.is_symlink()]


def texts() -> Iterator[tuple[str, str]]:
    for path in files():
        try:
            yield str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")
        except UnicodeDecodeError:  # a picture, a golden repository
            continue


def python() -> Iterator[tuple[str, str]]:
    return ((name, text) for name, text in texts() if name.endswith(".py"))


def document(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


class TestText:
    @pytest.mark.parametrize(
        ("rule", "what"),
        [
            (_PLACES, "a path of one machine"),
            (_REGISTRIES, "a package registry's address"),
            (_UNFINISHED, "unfinished"),
        ],
        ids=["places", "registries", "unfinished"],
    )
    def test_nothing_is_in_it_that_should_not(self, rule: re.Pattern[str], what: str) -> None:
        found = [
            f"{name}: {what}: {match[0]!r}"
            for name, text in texts()
            for match in rule.finditer(text)
            if rule is not _UNFINISHED or not name.startswith("chrono_backups_tests/")
        ]
        assert found == []

    def test_the_rules_see_what_they_are_for(self) -> None:
        assert _PLACES.search("see " + "/home" + "/alice/x") and _PLACES.search(f"in {ROOT}/docs")
        assert _REGISTRIES.search("https://files.example.com/a-1.0." + "whl") and not _REGISTRIES.search(
            "https://a.example"
        )
        assert _UNFINISHED.search("# TO" + "DO: later") and not _UNFINISHED.search("a to-do list")

    def test_files_and_functions_are_one_thing_each(self) -> None:
        found = [f"{name}: {lines} lines" for name, text in python() if (lines := text.count("\n")) > MOST_LINES]
        for name, text in python():
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    lines = (node.end_lineno or node.lineno) - node.lineno
                    if lines > MOST_LINES_OF_A_FUNCTION:
                        found.append(f"{name}:{node.lineno} {node.name}: {lines} lines")
        assert found == []

    def test_scripts_can_be_run(self) -> None:
        assert [str(path) for path in files() if path.parent.name == ".ci" and not os.access(path, os.X_OK)] == []


class TestRooms:
    MODULES = sorted(
        path.stem if path.suffix else path.name
        for path in (ROOT / "chrono_backups").iterdir()
        if (path / "__init__.py").is_file() or (path.suffix == ".py" and path.name != "__init__.py")
    )

    def test_the_import_rules_are_kept(self) -> None:
        ran = subprocess.run(
            [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c(['--no-cache'])"],
            cwd=ROOT, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert ran.returncode == 0, ran.stdout + ran.stderr

    def test_every_module_has_its_layer(self) -> None:
        layers = PROJECT["tool"]["importlinter"]["contracts"][0]
        assert layers["exhaustive"] is True
        named = [module for layer in layers["layers"] for module in re.findall(r"\w+", layer)]
        assert sorted(named) == self.MODULES

    def test_dagster_is_forbidden_wherever_it_does_not_belong(self) -> None:
        forbidden = PROJECT["tool"]["importlinter"]["contracts"][1]
        allowed = {"orchestration", "definitions"}
        assert sorted(forbidden["source_modules"]) == [
            f"chrono_backups.{one}" for one in self.MODULES if one not in allowed
        ]

    @pytest.mark.parametrize("module", MODULES)
    def test_the_architecture_tells_of_every_room(self, module: str) -> None:
        assert re.search(rf"`{module}(?:/|\.py)?`", document("docs/architecture.md"))


class TestPins:
    EXTRAS = PROJECT["project"]["optional-dependencies"]
    BASE = PROJECT["project"]["dependencies"]

    @staticmethod
    def pins(name: str) -> dict[str, str]:
        found = re.findall(r"^([\w.-]+)(?:\[[\w,]+\])?==([\w.]+)", document(f"requirements/{name}.txt"), re.MULTILINE)
        return {canonicalize_name(one): version for one, version in found}

    @pytest.mark.parametrize("name", ["base", "dagster", "dev"])
    def test_everything_asked_for_is_pinned_to_a_version_that_suits(self, name: str) -> None:
        wanted = [*self.BASE, *(self.EXTRAS["dagster"] if name != "base" else ())]
        wanted += self.EXTRAS["dev"] if name == "dev" else []
        pins = self.pins(name)
        for requirement in map(Requirement, wanted):
            version = pins.get(canonicalize_name(requirement.name))
            assert version is not None, f"{requirement} is not pinned: make pins"
            assert version in requirement.specifier, f"{requirement}, and pinned is {version}: make pins"

    def test_all_environments_have_the_same_versions(self) -> None:
        most = self.pins("dev")
        for name in ("base", "dagster"):
            assert self.pins(name).items() <= most.items()

    @pytest.mark.parametrize("name", ["base", "dagster", "dev"])
    def test_every_pin_has_its_hashes_and_none_a_place(self, name: str) -> None:
        text = document(f"requirements/{name}.txt")
        lines = re.findall(r"^[\w.-]+(?:\[[\w,]+\])?==.*$", text, re.MULTILINE)
        assert lines and all(line.endswith("\\") for line in lines)
        assert len(re.findall(r"^[\w.-]+.*\n    --hash=sha256:[0-9a-f]{64}", text, re.MULTILINE)) == len(lines)
        assert "://" not in text

    @pytest.mark.parametrize("requirement", [*BASE, *EXTRAS["dagster"], *EXTRAS["dev"]])
    def test_every_dependency_is_accounted_for(self, requirement: str) -> None:
        assert f"`{Requirement(requirement).name}`" in document("docs/dependencies.md")


class TestDocuments:
    """What the documents tell to type can be typed."""

    MAKE = frozenset(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))

    @pytest.mark.parametrize("name", DOCUMENTS)
    def test_the_targets_are_in_the_makefile(self, name: str) -> None:
        text = document(name)
        told = [*re.findall(r"`make ([a-z]+)", text), *re.findall(r"^\s*make ([a-z]+)", "\n".join(_lines(text)), re.M)]
        assert set(told) <= self.MAKE

    @pytest.mark.parametrize("name", DOCUMENTS)
    def test_the_verbs_and_options_are_those_of_the_program(self, name: str) -> None:
        text = document(name)
        spoken = [*_lines(text), *re.findall(r"`(chrono-backups [^`]+)`", text)]
        for verb, options in (command for line in spoken for command in _commands(line)):
            assert verbs.find(verb) is not None, f"{name} tells of a verb {verb!r}"
            unknown = [option for option in options if option not in _help(verb)]
            assert unknown == [], f"{name}: {verb} has no {', '.join(unknown)}"

    @pytest.mark.parametrize("name", DOCUMENTS)
    def test_the_links_lead_somewhere(self, name: str) -> None:
        targets = [target for target in _LINK.findall(document(name)) if "://" not in target]
        assert [target for target in targets if not (ROOT / name).parent.joinpath(target).exists()] == []

    def test_every_exit_code_is_told_of(self) -> None:
        codes = {code for name, code in vars(exit_codes).items() if name.isupper() and isinstance(code, int)}
        assert codes >= set(exit_codes.EXIT_CODES.values())
        page = document("docs/command-line.md")
        assert {int(code) for code in re.findall(r"^\| (\d+) \|", page, re.MULTILINE)} == codes
        assert {int(code) for code in re.findall(r"^  (\d+) ", verbs.EXIT_CODES_HELP, re.MULTILINE)} == codes
        assert "docs/command-line.md#exit-codes" in document("README.md")


def _lines(text: str) -> Iterator[str]:
    """The lines of the blocks of commands; one that ends with a backslash goes on."""
    for block in _FENCED.findall(text):
        yield from re.sub(r"\\\n\s*", "", block).splitlines()


def _commands(line: str) -> Iterator[tuple[str, list[str]]]:
    """Verb and long options of each ``chrono-backups`` in a line of shell; placeholders are none."""
    for words in re.findall(rf"\b{verbs.PROGRAM} ([^|;&>`#]+)", line):
        _, verb = verbs.split([word.strip("[]…()") for word in words.split()])
        if verb and re.fullmatch(r"[a-z]+", verb):
            yield verb, re.findall(r"(?<![\w-])--[a-z][a-z-]*", words)


ACTIONS = {"key": ("list", "add", "remove"), "audit": ("verify", "show")}
_helps: dict[str, str] = {}


def _help(verb: str) -> str:
    """A verb's help, and that of what follows it."""
    if verb not in _helps:
        asked = [[verb], *([verb, action] for action in ACTIONS.get(verb, ()))]
        _helps[verb] = (
            "".join(
                subprocess.run(
                    [sys.executable, "-m", "chrono_backups", *words, "--help"],
                    capture_output=True,
                    text=True,
                    check=True,
                ).stdout
                for words in asked
            )
            + verbs.help_text()
        )
    return _helps[verb]
