"""What a change may have broken: the files that differ from a base, and the tests that answer.

`changes` asks git for the files, `choose` finds the tests and notebooks that answer for them and
keeps the most relevant ones that fit into three minutes on two cores. `make quick` runs those.
"""

import ast
import json
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUDGET = 150
"""Seconds of one core for tests and notebooks; lint and types have the rest of three minutes."""
MOST_NOTEBOOKS = 2
USUAL = 1
"""Seconds of one core that a file of tests takes, if it is not among SECONDS."""
SECONDS = {
    "tests/data/test_tales.py": 8,
    "tests/exercises/test_exercises.py": 5,
    "tests/experiments/test_choosing_trial.py": 15,
    "tests/experiments/test_study.py": 5,
    "tests/fast/test_compiling.py": 6,
    "tests/fast/test_decoding.py": 8,
    "tests/fast/test_memory.py": 5,
    "tests/generate/test_speculative.py": 5,
    "tests/interop/test_hf_config.py": 8,
    "tests/model/test_compile.py": 15,
    "tests/model/test_completeness.py": 60,
    "tests/optim/test_optim_parity.py": 7,
    "tests/test_browser.py": 300,
    "tests/test_gpu_script.py": 12,
    "tests/test_links.py": 4,
    "tests/test_pdf.py": 12,
    "tests/test_published.py": 17,
    "tests/test_wheel.py": 25,
    "tests/tokenizer/test_parity.py": 11,
    "tests/tokenizer/test_pretokenize.py": 6,
    "tests/tokenizer/test_train.py": 4,
    "tests/train/test_distributed.py": 12,
    "tests/train/test_distributed_job.py": 26,
    "tests/train/test_loop.py": 30,
    "tests/train/test_ring.py": 6,
    "tests/viz/test_explore_browser.py": 6,
    "tests/web/test_cost_widget.py": 30,
    "tests/web/test_costs.py": 10,
    "tests/web/test_engine.py": 12,
    "tests/web/test_export.py": 10,
    "tests/web/test_tokens.py": 10,
    "tests/web/test_widgets.py": 60,
}
ALWAYS = ["tests/test_house.py", "tests/test_checks.py"]
OF_ALL = {
    "llmtutor/": "tests/test_examples.py",
    "book/chapters/": "tests/test_chapters.py",
    "data/results/bench-": "tests/test_performance.py",
}
"""Tests that look at every file whose name begins so."""
PAGES = "the pages"
"""Name of what only the built book can show."""


@dataclass(frozen=True)
class Choice:
    """What `make quick` runs, by names below the root, and what had no room."""

    tests: list[str]
    notebooks: list[str]
    left_out: list[str]


def changes() -> tuple[str, list[str]]:
    """What the files are compared with, in words, and those that differ, the untracked included.

    Without git, or without a commit before, nothing tells them apart and all tests count.
    """
    commit, words = base()
    differing = git("diff", "--name-only", "--no-renames", "--relative", "-z", commit, "--")
    if differing is None:
        words = "nothing, because there is no history of git here: all tests count as changed"
        return words, found(ROOT / "tests", "test_*.py")
    untracked = git("ls-files", "--others", "--exclude-standard", "-z") or ""
    return words, sorted({name for name in (differing + untracked).split("\0") if name})


def base() -> tuple[str, str]:
    """The commit to compare with (empty if there is none) and what it is.

    Where the branch left main or origin/main, whichever is nearer; on main itself, the last
    commit, or the one before it if nothing was changed since.
    """
    head = git("rev-parse", "HEAD")
    if not head:
        return "", ""
    forks = {git("merge-base", "HEAD", ref) or head for ref in ("main", "origin/main")} - {head}
    if forks:
        nearest = min(forks, key=lambda fork: int(git("rev-list", "--count", f"{fork}..") or 0))
        return nearest, f"{nearest[:7]}, where this branch left main"
    if git("status", "--porcelain"):
        return head, f"{head[:7]}, the last commit"
    return "HEAD~", "the commit before the last (nothing was changed since that one)"


def git(*arguments: str) -> str | None:
    """What git says, without the end of the line; None where there is no git or it refuses."""
    if not (ROOT / ".git").exists():  # a copy inside another repository is none of its own
        return None
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=ROOT, capture_output=True, check=True, encoding="utf-8"
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.removesuffix("\n")


def choose(changed: Sequence[str], budget: int = BUDGET) -> Choice:
    """The tests and notebooks for changed files, in the order of their relevance.

    Changed tests come first, then the tests named like a changed module, those of its package, and
    those elsewhere that use it. What does not fit into the budget (seconds of one core) is left
    out; cheaper tests behind it may still fit.
    """
    chapters = [name for name in changed if name.endswith(".ipynb") and (ROOT / name).exists()]
    notebooks, left_out = chapters[:MOST_NOTEBOOKS], chapters[MOST_NOTEBOOKS:]
    room = budget - sum(seconds_of_chapter(name) for name in notebooks)
    tests = []
    for name in dict.fromkeys(ranked(changed)):
        if (cost := SECONDS.get(name, USUAL)) > room:
            left_out.append(name)
        else:
            room -= cost
            tests.append(name)
    if any(name.startswith(("book/", "_")) and not name.endswith(".py") for name in changed):
        left_out.append(PAGES)
    return Choice(tests, notebooks, left_out)


def ranked(changed: Sequence[str]) -> Iterator[str]:
    """Files of tests that answer for a change, the most relevant first; some come twice."""
    yield from ALWAYS
    yield from (name for name in changed if is_test(name) and (ROOT / name).exists())
    modules = [name for name in changed if name.startswith("llmtutor/")]
    for name in modules:
        yield from tests_in(Path(name), f"test_{Path(name).stem}*.py")
    for beginning, test in OF_ALL.items():
        yield from (test for name in changed if name.startswith(beginning))
    for name in modules:
        yield from tests_in(Path(name), "test_*.py")
    for name in changed:  # what tests share: fixtures, settings
        if name.startswith("tests/") and not is_test(name):
            yield from found(ROOT / Path(name).parent, "test_*.py")
    yield from users(changed)


def is_test(name: str) -> bool:
    """Whether a file holds tests."""
    return name.startswith("tests/") and Path(name).match("test_*.py")


def tests_in(module: Path, pattern: str) -> list[str]:
    """Files of tests in the package of a module, or beside them if it stands there itself."""
    if len(module.parts) == 2:
        return found(ROOT / "tests", f"test_{module.stem}.py", deep=False)
    return found(ROOT / "tests" / module.parts[1], pattern)


def found(folder: Path, pattern: str, deep: bool = True) -> list[str]:
    """Names below the root of the files in a folder, the quick ones first."""
    paths = folder.rglob(pattern) if deep else folder.glob(pattern)
    names = (path.relative_to(ROOT).as_posix() for path in paths)
    return sorted(names, key=lambda name: (SECONDS.get(name, USUAL), name))


def users(changed: Sequence[str]) -> Iterator[str]:
    """Files of tests that use a changed file; first those that name it, then those near it."""
    tests, files = found(ROOT / "tests", "test_*.py"), [Path(name) for name in changed]
    for relation in (names, names_room):
        yield from (test for test in tests if any(relation(ROOT / test, file) for file in files))


def names(test: Path, file: Path) -> bool:
    """Whether a file of tests imports this very module, or holds its name in quotes."""
    package = file.parts[0] == "llmtutor"
    module = ".".join(file.with_suffix("").parts) if package else file.stem
    quoted = (f'"{module}"', f'"{file.name}"')
    return module in imports(test) or any(name in text_of(test) for name in quoted)


def names_room(test: Path, file: Path) -> bool:
    """Whether a file of tests imports from the package of this module, or names a part of it."""
    if file.parts[0] != "llmtutor" or len(file.parts) < 3:
        return False
    room = ".".join(file.parts[:2])
    imported = any(f"{name}.".startswith(f"{room}.") for name in imports(test))
    return imported or f'"{room}.' in text_of(test)


def seconds_of_chapter(name: str) -> int:
    """What running a chapter took when it was last executed."""
    costs = json.loads(text_of(ROOT / "data" / "results" / "chapter_costs.json"))
    return costs.get(Path(name).stem, {}).get("seconds", 60)


@cache
def text_of(path: Path) -> str:
    """A file's text, read once."""
    return path.read_text(encoding="utf-8")


@cache
def parse(path: Path) -> ast.Module:
    """A module's syntax, parsed once."""
    return ast.parse(text_of(path))


@cache
def imports(path: Path) -> frozenset[str]:
    """Every module, or name in a module, that a file imports, dotted."""
    names = set()
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
    return frozenset(names)
