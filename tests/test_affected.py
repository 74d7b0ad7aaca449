"""`make quick`: what it compares with, which tests answer for a change, and what has no room."""

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import affected
import build
import pytest
from affected import ALWAYS, PAGES, changes, choose

Git = Callable[..., str]


@pytest.fixture
def git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Git:
    """A repository with two commits on main, which the tool takes for the project."""

    def git(*arguments: str) -> str:
        who = ["-c", "user.name=x", "-c", "user.email=x", "-c", "commit.gpgsign=false"]
        command = ["git", *who, *arguments]
        try:
            return subprocess.run(
                command, cwd=tmp_path, check=True, capture_output=True, encoding="utf-8"
            ).stdout.strip()
        except FileNotFoundError:
            pytest.skip("git is not installed")

    monkeypatch.setattr(affected, "ROOT", tmp_path)
    git("init", "-q", "-b", "main")
    for name in ("first.py", "second.py"):
        write(tmp_path / name)
        git("add", ".")
        git("commit", "-qm", name)
    return git


def write(path: Path) -> None:
    path.write_text(f"{path.read_text() if path.exists() else ''}line\n", encoding="utf-8")


def test_on_a_branch_files_count_that_differ_from_where_it_left_main(
    git: Git, tmp_path: Path
) -> None:
    fork = git("rev-parse", "HEAD")
    git("update-ref", "refs/remotes/origin/main", "HEAD~")  # farther away than main
    git("checkout", "-qb", "branch")
    write(tmp_path / "third.py")
    git("mv", "first.py", "renamed.py")
    git("add", ".")
    git("commit", "-qm", "third")
    write(tmp_path / "second.py")
    write(tmp_path / "new é.py")
    git("checkout", "-q", "main")  # main goes on, which is none of the branch's
    write(tmp_path / "other.py")
    git("add", "other.py")
    git("commit", "-qm", "other")
    git("checkout", "-q", "branch")
    words, files = changes()
    assert words == f"{fork[:7]}, where this branch left main"
    assert files == ["first.py", "new é.py", "renamed.py", "second.py", "third.py"]


def test_on_main_files_count_that_were_changed_since_the_last_commit_or_in_it(
    git: Git, tmp_path: Path
) -> None:
    assert changes() == (
        "the commit before the last (nothing was changed since that one)",
        ["second.py"],
    )
    write(tmp_path / "first.py")
    assert changes() == (f"{git('rev-parse', 'HEAD')[:7]}, the last commit", ["first.py"])


def test_commits_that_origin_has_not_count_on_main(git: Git, tmp_path: Path) -> None:
    git("update-ref", "refs/remotes/origin/main", "HEAD~")
    write(tmp_path / "third.py")
    words, files = changes()
    assert words.endswith("where this branch left main")
    assert files == ["second.py", "third.py"]


@pytest.mark.parametrize("kind", ["no repository", "one commit", "no commit", "no git"])
def test_without_history_all_tests_count(
    kind: str, git: Git, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tests = tmp_path / "tests" / "room"
    tests.mkdir(parents=True)
    write(tests / "test_it.py")
    if kind == "no repository":
        (tmp_path / ".git").rename(tmp_path / "elsewhere")
    elif kind == "no git":
        monkeypatch.setenv("PATH", str(tmp_path))
    else:
        git("update-ref", "-d", "refs/heads/main")
        if kind == "one commit":
            git("add", ".")
            git("commit", "-qm", "all")
    words, files = changes()
    assert words.startswith("nothing, because there is no history")
    assert files == ["tests/room/test_it.py"]


def places(chosen: list[str], *names: str) -> list[int]:
    return [chosen.index(name) for name in names]


def test_a_module_is_answered_by_its_namesake_then_by_its_room_then_by_its_users() -> None:
    chosen = choose(["llmtutor/layers/norms.py"], budget=1000)
    order = places(
        chosen.tests,
        *ALWAYS,
        "tests/layers/test_norms.py",
        "tests/test_examples.py",
        "tests/layers/attention/test_core.py",  # of the same room
        "tests/test_shapes.py",  # names the module
        "tests/model/test_init.py",  # imports from the room
    )
    assert order == sorted(order)
    assert "tests/tokenizer/test_bpe.py" not in chosen.tests
    assert len(set(chosen.tests)) == len(chosen.tests) and chosen.left_out == []


@pytest.mark.parametrize(
    ("changed", "test"),
    [
        ("tests/viz/test_alt.py", "tests/viz/test_alt.py"),
        ("tests/train/conftest.py", "tests/train/test_log.py"),
        ("llmtutor/cli/train.py", "tests/cli/test_train.py"),
        ("llmtutor/checks.py", "tests/test_checks.py"),
        ("llmtutor/optim/deleted.py", "tests/optim/test_optimizers.py"),
        ("book/tools/contract.py", "tests/test_chapters.py"),
        ("book/chapters/02_data.ipynb", "tests/test_chapters.py"),
        ("data/results/sizes.json", "tests/experiments/test_studies.py"),
        ("data/results/bench-generation.json", "tests/test_performance.py"),
        ("pyproject.toml", "tests/test_house.py"),
    ],
)
def test_a_changed_file_has_a_test_that_answers(changed: str, test: str) -> None:
    assert test in choose([changed]).tests


def test_what_has_no_room_is_left_out_and_quick_tests_behind_it_are_not() -> None:
    slow = "tests/train/test_loop.py"
    chosen = choose(["llmtutor/train/loop.py"], budget=20)
    assert slow in chosen.left_out and slow not in chosen.tests
    assert "tests/train/test_log.py" in chosen.tests
    assert sum(affected.SECONDS.get(name, affected.USUAL) for name in chosen.tests) <= 20


def test_two_notebooks_run_and_what_only_built_pages_show_is_said() -> None:
    names = sorted(path.name for path in (affected.ROOT / "book/chapters").glob("0[1-3]*.ipynb"))
    first, second, third = (f"book/chapters/{name}" for name in names)
    chosen = choose([first, "book/chapters/00_gone.ipynb", second, third])
    assert chosen.notebooks == [first, second]
    assert chosen.left_out == [third, PAGES]
    assert choose(["book/intro.md"]).left_out == [PAGES]
    assert choose(["book/tools/build.py", "README.md"]).left_out == []


def test_times_are_of_tests_that_exist() -> None:
    assert [name for name in affected.SECONDS if not (affected.ROOT / name).is_file()] == []


def test_quick_runs_lint_types_and_the_chosen_and_says_the_rest_in_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[tuple[list[str], float]] = []
    monkeypatch.setattr(build, "run", lambda command, end: seen.append((command, end)) or 0)
    notebook = "book/chapters/01_tokenizer.ipynb"
    monkeypatch.setattr(affected, "changes", lambda: ("a commit", ["x.py", notebook]))
    missing = [f"tests/test_{i}.py" for i in range(9)]
    choice = affected.Choice(["tests/test_a.py"], [notebook], missing)
    monkeypatch.setattr(affected, "choose", lambda changed: choice)
    build.main(["quick"])
    commands, ends = zip(*seen, strict=True)
    lint, form, types, imports, unit, *data, chapters = commands
    assert [lint, form] == build.CHECKS["lint"] and [types] == build.CHECKS["types"]
    assert [imports] == build.CHECKS["imports"] and data == build.CHECKS["data"]
    assert unit[-1] == "tests/test_a.py" and "--nbval" not in unit
    assert chapters[-1] == notebook and "--nbval" in chapters
    assert len(set(ends)) == 1 and ends[0] - time.monotonic() <= 180
    first, second, *_ = capsys.readouterr().out.splitlines()
    assert first == "Compared with a commit; changed files: 2"
    assert second == f"Left out, `make test` has all: {', '.join(missing[:5])} and 4 more"


@pytest.mark.parametrize("start", ["", "signal.signal(signal.SIGINT, signal.SIG_IGN)"])
def test_a_command_is_stopped_when_the_time_is_over_and_has_failed(
    start: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one that does not listen to Ctrl-C."""
    monkeypatch.setattr(build, "PATIENCE", 0.5)
    endless = [build.PYTHON, "-c", f"import signal\n{start}\nwhile True: pass"]
    assert build.run(endless, end=time.monotonic() + 0.3) != 0
    assert "stopped, the time is over" in capsys.readouterr().out
