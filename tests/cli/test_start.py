"""`llmtutor start`: what it tells a learner."""

from pathlib import Path

import pytest

from llmtutor import __version__, cli
from llmtutor.cli import start

ROOT = Path(__file__).resolve().parents[2]


def test_a_workspace_is_made_changed_reset_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["start", "my work"]) == 0
    said = capsys.readouterr().out
    n_chapters = len(list(Path("my work").glob("[0-9]*.ipynb")))
    assert f"{n_chapters} chapters of llmtutor {__version__}" in said and n_chapters >= 25
    assert f"new: {n_chapters + 1} files, START, 01_tokenizer …" in said
    path = str(Path("my work", "START.ipynb"))
    assert said.endswith(f"Begin with: jupyter lab '{path}'\n")

    chapter = Path("my work", "04_attention.ipynb")
    fresh = chapter.read_text(encoding="utf-8")
    chapter.write_text(fresh.replace("# Attention", "# Mine"), encoding="utf-8")
    assert cli.main(["start", "my work"]) == 0
    said = capsys.readouterr().out
    assert "yours, left as it is: 04_attention" in said
    assert f"up to date: {n_chapters} files" in said

    monkeypatch.setattr(start, "find_spec", lambda name: None)
    old = {"04_attention.ipynb": fresh.replace("# Attention", "# New").encode()}
    monkeypatch.setattr(start, "lessons", lambda: old)
    assert cli.main(["start", "my work"]) == 0
    said = capsys.readouterr().out
    assert "the new version put beside it: 04_attention" in said
    assert "04_attention.ipynb → 04_attention.new.ipynb" in said
    assert 'pip install "llmtutor[lab]"' in said

    assert cli.main(["start", "my work", "--reset", "4"]) == 0
    said = capsys.readouterr().out
    assert "a fresh copy, and yours kept in backups (backups/04_attention." in said
    assert chapter.read_bytes() == old["04_attention.ipynb"]
    (backup,) = Path("my work", "backups").iterdir()
    assert "# Mine" in backup.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["file"], "file is a file; name a folder"),
        (["new", "--reset", "04_atention"], "did you mean '04_attention'"),
        (["new", "--reset", "4"], "new is no workspace yet; `llmtutor start new` makes it one"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    assert cli.main(["start", *arguments]) == 1
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not Path("new").exists()


def test_make_lab_opens_a_workspace_that_git_ignores() -> None:
    recipe = (ROOT / "Makefile").read_text(encoding="utf-8").partition("\nlab:")[2]
    lines = recipe.partition("\n\n")[0].splitlines()[1:]
    assert [line.split("$(BIN)/")[1] for line in lines] == [
        "llmtutor start my-work",
        "jupyter lab my-work/START.ipynb",
    ]
    assert "/my-work/" in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
