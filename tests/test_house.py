"""The house in order: pins agree, chapters meet their modules, nothing private leaks into files."""

import ast
import json
import re
import subprocess
import tomllib
from functools import cache
from pathlib import Path

import build
import pages
import pytest
import yaml
from affected import imports, parse, text_of
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

import llmtutor
from llmtutor import exercises

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "llmtutor"
MODULES = sorted(p for p in PACKAGE.rglob("*/*.py") if p.name not in ("__init__.py", "__main__.py"))
CHAPTERS = sorted((ROOT / "book" / "chapters").glob("[0-9][0-9]_*.ipynb"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
MOST_LINES = 300


def read(name: str) -> str:
    return text_of(ROOT / name)


def name_of(path: Path) -> str:
    """`llmtutor/data/tokens.py` is `data.tokens`."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


def tracked() -> list[Path]:
    """Every file under version control that is text."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a clone: there is no list of tracked files")
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, encoding="utf-8"
    )
    paths = [ROOT / name for name in listed.stdout.split("\0") if name]
    return [path for path in paths if path.exists() and b"\0" not in path.read_bytes()[:8192]]


# Pins ------------------------------------------------------------------------------------------


def pins() -> dict[str, str]:
    lines = [line for line in read("constraints.txt").splitlines() if line]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines)
    return {canonicalize_name(name): v for name, v in (line.split("==") for line in lines)}


def requirements() -> list[Requirement]:
    groups = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    return [Requirement(text) for group in groups for text in group]


@pytest.mark.parametrize("wanted", requirements(), ids=str)
def test_pin_lies_in_the_range_of_the_project(wanted: Requirement) -> None:
    pinned = pins()
    name = canonicalize_name(wanted.name)
    assert name in pinned, f"{name} has no pin in constraints.txt"
    assert wanted.specifier.contains(pinned[name])


OF_CHOICE = ("export", "eval")
"""What a user of the package may install besides; `dev` has what the tests need of it."""


def test_conda_and_binder_take_the_same_pins() -> None:
    *conda, pip = yaml.safe_load(read("environment.yml"))["dependencies"]
    extras = ",".join(["book", "lab", "dev"])
    assert {*extras.split(","), *OF_CHOICE} == set(PROJECT["optional-dependencies"])
    assert pip == {"pip": ["-c constraints.txt", f"-e .[{extras}]"]}
    assert f'-c constraints.txt -e ".[{extras}]"' in read("Makefile")
    assert f'-c constraints.txt -e ".[{extras}]"' in read(".github/workflows/test.yml")
    (python,) = [entry.split("=")[1] for entry in conda if entry.startswith("python=")]
    assert SpecifierSet(PROJECT["requires-python"]).contains(f"{python}.0")


@pytest.mark.parametrize("folder", ["book", "benchmarks/web"])
def test_packages_by_npm_are_pinned_without_addresses(folder: str) -> None:
    files = (f"{folder}/{name}.json" for name in ("package", "package-lock"))
    package, lock = (json.loads(read(file)) for file in files)
    wanted = {**package["dependencies"], **package.get("devDependencies", {})}
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", version) for version in wanted.values())
    for name, version in wanted.items():
        assert lock["packages"][f"node_modules/{name}"]["version"] == version
    assert all("resolved" not in entry for entry in lock["packages"].values())


def test_one_version() -> None:
    assert yaml.safe_load(read("CITATION.cff"))["version"] == llmtutor.__version__


# Chapters, modules, exercises, tests --------------------------------------------------------------


def first_line(path: Path) -> str:
    return (ast.get_docstring(parse(path)) or "").split("\n")[0]


def chapter_of(path: Path) -> str | None:
    """The number of the chapter that the first line of a module names, "every" or None."""
    line = first_line(path)
    number = re.match(r"Chapter (\d\d)[,:]", line)
    return number[1] if number else "every" if "every chapter" in line else None


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)
def test_chapter_has_a_module_exercises_and_tests_of_its_name(path: Path) -> None:
    number, _, name = path.stem.partition("_")
    packages = [*PACKAGE.rglob(f"{name}.py"), *(p for p in PACKAGE.rglob(name) if p.is_dir())]
    # A module with a shorter name says the chapter's in its first line: ffn.py, feed-forward.
    opening = f"Chapter {number}, {name}:"
    packages += [p for p in MODULES if re.sub("[-_]", "_", first_line(p)).startswith(opening)]
    packages = [p for p in packages if p.parent.name != "exercises"]
    assert packages, f"no module or package is called {name}, in its name or its first line"
    assert chapter_of(PACKAGE / "exercises" / f"{name}.py") == number
    tests = ROOT / "tests"
    named = {name, *(package.stem for package in packages)}
    assert any([*tests.rglob(f"test_{n}.py"), *tests.rglob(f"{n}/test_*.py")] for n in named)
    assert number in {chapter_of(module) for module in MODULES if "exercises" not in module.parts}


@pytest.mark.parametrize(
    "path", [p for p in MODULES if p.parent.name != "cli"], ids=lambda p: name_of(p)
)
def test_a_chapter_that_a_module_names_exists_or_is_announced(path: Path) -> None:
    """What no chapter shows names none."""
    chapter = chapter_of(path)
    assert first_line(path), f"{path.name} says nothing of itself"
    announced = re.findall(r"^(\d+)\. ", read("book/intro.md"), re.M)
    assert chapter in (None, "every") or int(chapter) in map(int, announced)


def test_landing_page_links_the_chapters_that_exist() -> None:
    linked = re.findall(r"^(\d+)\. \{doc\}`[^`]*<chapters/(\w+)>`", read("book/intro.md"), re.M)
    in_order = sorted((path.stem for path in CHAPTERS), key=pages.reading_order)
    assert [(int(number), name) for number, name in linked] == [
        (int(name[:2]), name) for name in in_order
    ]


def test_each_module_of_exercises_belongs_to_a_chapter() -> None:
    assert exercises.chapters() == sorted(path.stem[3:] for path in CHAPTERS)


@cache
def modules_tested(package: str) -> frozenset[str]:
    """Modules of a package that its tests are named after or import, by themselves or by a name."""
    files = list((ROOT / "tests" / package).rglob("test_*.py"))
    imported = {name for file in files for name in imports(file)}
    found = set()
    for module in (m for m in MODULES if m.relative_to(PACKAGE).parts[0] == package):
        parts = module.relative_to(PACKAGE).with_suffix("").parts
        defines = {
            n.name for n in parse(module).body if isinstance(n, ast.FunctionDef | ast.ClassDef)
        }
        shown = {f"llmtutor.{package}.{name}" for name in defines} | {f"llmtutor.{name_of(module)}"}
        named = any(f.stem.startswith(f"test_{part}") for f in files for part in parts[1:])
        if named or shown & imported:
            found.add(f"llmtutor.{name_of(module)}")
    return frozenset(found)


@pytest.mark.parametrize("path", MODULES, ids=lambda p: name_of(p))
def test_module_is_tested_in_the_folder_of_its_room(path: Path) -> None:
    """By a test that names it, or through a module of its package that uses it and is tested."""
    module = f"llmtutor.{name_of(path)}"
    tested = modules_tested(path.relative_to(PACKAGE).parts[0])
    users = {f"llmtutor.{name_of(m)}" for m in MODULES if module in imports(m)}
    exercise = path.parent.name == "exercises" and path.stem in exercises.chapters()
    assert exercise or module in tested or users & tested, f"nothing tests {module}"


@pytest.mark.parametrize(
    "path",
    # Those of tests/claims test what a chapter says of the world.
    sorted(p for p in (ROOT / "tests").rglob("*/test_*.py") if p.parent.name != "claims"),
    ids=lambda p: f"{p.parent.name}.{p.stem}",
)
def test_test_file_lies_in_the_folder_of_the_room_it_tests(path: Path) -> None:
    package = ".".join(["llmtutor", *path.parent.relative_to(ROOT / "tests").parts])
    assert any(f"{name}.".startswith(f"{package}.") for name in imports(path)), (
        f"no import of {package}"
    )


def test_each_module_has_its_place_in_the_reference() -> None:
    pages = "\n".join(text_of(p) for p in (ROOT / "book/api").glob("*.md"))
    shown = re.findall(r"^\.\. automodule:: llmtutor\.(\w+\.\w+)$", pages, re.M)
    packages = [p for p in PACKAGE.iterdir() if p.is_dir() and p.name not in ("cli", "__pycache__")]
    modules = [
        f"{package.name}.{child.stem}"
        for package in packages
        for child in package.iterdir()
        if (child.suffix == ".py" and not child.name.startswith("_"))
        or (child / "__init__.py").exists()
    ]
    solutions = {f"exercises.{name}" for name in exercises.chapters()}
    assert sorted(shown) == sorted(set(modules) - solutions)


@pytest.mark.parametrize("path", [*MODULES, *(ROOT / "book").glob("*/*.py")], ids=lambda p: p.stem)
def test_module_fits_in_one_reading(path: Path) -> None:
    lines = len(text_of(path).splitlines())
    # A chapter's exercises are entries side by side, not one line of thought.
    most = MOST_LINES + 50 * (path.parent.name == "exercises")
    assert lines <= most, f"{lines} lines; cut it where the subject changes"


# What no file says -------------------------------------------------------------------------------

# Written with a ~ inside, so that this file does not hold what it forbids.
PRIVATE = {
    "a folder of one machine": r"(?<![\w.])/(?:wo~rk|ro~ot)/",
    "a host of a package registry": r"py~pi\.org|pythonho~sted|npm~js\.(?:org|com)",
    "talk about how the work was done": r"\biss~ue #\d|\bth~is session\b|\bsub~agent",
    "the shared folder of one machine": r"\.\./sha~red",
}
ALLOWED = {
    (".ci/run", "the shared folder of one machine"),
    ("book/tools/contract.py", "a folder of one machine"),  # it looks for them too
}


def leaks(name: str, text: str) -> list[str]:
    return [
        f"{name} holds {what}: {found[0]}"
        for what, pattern in PRIVATE.items()
        if (name, what) not in ALLOWED
        and (found := re.search(pattern.replace("~", ""), text, re.I))
    ]


def test_files_speak_of_the_project_alone() -> None:
    found = []
    for path in tracked():
        name = path.relative_to(ROOT).as_posix()
        found += leaks(name, text_of(path))
    assert found == []


@pytest.mark.parametrize(
    "text",
    [
        "see /wo~rk/main/x.py",
        "/ro~ot/x",
        "https://py~pi.org/x",
        "as iss~ue #12 asks",
        "../sha~red/x",
    ],
)
def test_each_leak_is_noticed(text: str) -> None:
    assert len(leaks("README.md", text.replace("~", ""))) == 1


def test_no_button_leads_nowhere() -> None:
    """Buttons are on only where an address is given, and the address is given in one place."""
    book = yaml.safe_load(read("_config.yml"))
    buttons = [value for key, value in book["html"].items() if key.endswith("_button")]
    hubs = [value for key, value in book["launch_buttons"].items() if key.endswith("_url")]
    if not book["repository"]["url"]:
        assert not any(buttons) and not any(hubs)


# The commands ------------------------------------------------------------------------------------


def test_make_offers_each_check_by_name() -> None:
    targets = set(re.findall(r"^([a-z ]+):", read("Makefile"), re.M))
    offered = {name for line in targets for name in line.split()}
    assert {*build.CHECKS, *build.COMMANDS} <= offered
    assert "make test" in read(".ci/run")


def test_unknown_check_is_an_error_that_names_the_known() -> None:
    with pytest.raises(SystemExit, match="no check 'speling'; there are assets, lint, types"):
        build.test(["speling"])


def test_a_failing_check_fails_the_whole_and_the_rest_still_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    checks = {"lint": [["false"]], "types": [["true"]]}
    monkeypatch.setattr(build, "CHECKS", checks)
    monkeypatch.setattr(build, "run", lambda command, end: int(command == ["false"]))
    with pytest.raises(SystemExit) as stop:
        build.test([])
    assert stop.value.code == 1
    said = capsys.readouterr().out
    assert re.search(r"lint +0 s +FAILED\ntypes +0 s +passed\ntotal", said)
