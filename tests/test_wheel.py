"""The wheel, away from the checkout: what is in it, and that a learner can work with it alone."""

import json
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

import llmtutor

ROOT = Path(__file__).resolve().parents[1]
INSIDE = "llmtutor/_shipped"
MOST_BYTES = 8_000_000
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from this working tree without a network."""
    pytest.importorskip("hatchling", reason="hatchling, which builds the wheel, is not installed")
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (path,) = folder.glob("llmtutor-*.whl")
    return path


@pytest.fixture(scope="module")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of packages with what the wheel holds."""
    folder = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def away(site: Path, home: Path) -> dict[str, str]:
    """The environment of a user who has only the wheel, and a home of their own."""
    own = {"PYTHONPATH": str(site), "HOME": str(home), "USERPROFILE": str(home)}
    own |= {"XDG_CACHE_HOME": str(home / "cache"), "PYTHONUTF8": "1", "OMP_NUM_THREADS": "1"}
    kept = {name: value for name, value in os.environ.items() if name != "LLMTUTOR_DATA"}
    return kept | own


@pytest.fixture
def run(site: Path, tmp_path: Path) -> Run:
    """Run Python in an empty folder with the wheel's packages first on its path."""
    empty, home = tmp_path / "empty", tmp_path / "home"
    empty.mkdir()
    home.mkdir()

    def run(*arguments: str, site: Path = site) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=empty,
            env=away(site, home),
            capture_output=True,
            encoding="utf-8",
            check=True,
        )

    return run


def test_it_holds_the_package_records_model_and_chapters_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        sizes = {info.filename: info.file_size for info in archive.infolist()}
    for place, source, pattern in (
        ("results", "data/results", "*.json"),
        ("chapters", "book/chapters", "*.ipynb"),
        ("models", "data/models", "staircase/**/*.*"),
    ):
        folder = ROOT / source
        wanted = {path.relative_to(folder).as_posix() for path in folder.glob(pattern)}
        found = {name for name in sizes if name.startswith(f"{INSIDE}/{place}/")}
        assert found == {f"{INSIDE}/{place}/{name}" for name in wanted} and wanted
    package = {path for path in (ROOT / "llmtutor").rglob("*") if path.is_file()}
    unshipped = re.compile(r"/(?:__pycache__|\.[^/]*)(?:/|$)")
    others = {p.relative_to(ROOT).as_posix() for p in package}
    others = {name for name in others if not unshipped.search(name)}
    mine = {n for n in sizes if n.startswith("llmtutor/") and not n.startswith(f"{INSIDE}/")}
    assert mine == others and {"llmtutor/viz/explore.js", "llmtutor/workspace/start.md"} <= mine
    rest = {name for name in sizes if not name.startswith("llmtutor/")}
    assert all(name.startswith(f"llmtutor-{llmtutor.__version__}.dist-info/") for name in rest)
    assert wheel.stat().st_size < MOST_BYTES


def test_its_chapters_have_no_outputs(site: Path) -> None:
    for path in (site / INSIDE / "chapters").iterdir():
        cells = json.loads(path.read_bytes())["cells"]
        assert not any(cell.get("outputs") for cell in cells), path.name


def test_an_editable_install_takes_nothing_out_of_the_checkout(tmp_path: Path) -> None:
    pytest.importorskip("hatchling", reason="hatchling, which builds the wheel, is not installed")
    from wheel_contents import Shipped

    for version, any_files in (("editable", False), ("standard", True)):
        data: dict = {"force_include": {}}
        hook = Shipped(str(ROOT), {}, None, None, str(tmp_path), "wheel")
        hook.initialize(version, data)
        hook.finalize(version, data, "")
        assert bool(data["force_include"]) is any_files


CODE = """
from pathlib import Path
import llmtutor
from llmtutor.data.places import data_dir
from llmtutor.experiments import catalogue
from llmtutor.experiments.kept import load_kept
from llmtutor.experiments.study import Study, load_record, results_dir, run_study

print(Path(llmtutor.__file__).parent.parent)
model, tokenizer = load_kept()
print(tokenizer.decode(tokenizer.encode("To be")), sum(p.numel() for p in model.parameters()))
print(len(load_record("staircase").runs), (results_dir() / "bench-norms.json").is_file())
mine = Study(name="mine", description="", runs=lambda plan: [{"n": 1}], run=lambda n: {"n": n})
list(run_study(mine))
print(data_dir() / "results" / "mine.json")
"""


def test_records_and_model_are_read_and_own_runs_go_to_the_users_folder(
    site: Path, tmp_path: Path, run: Run
) -> None:
    before = {path: path.stat().st_size for path in site.rglob("*") if path.suffix != ".pyc"}
    where, text, record, mine = run("-c", CODE).stdout.splitlines()
    assert where == str(site)
    assert re.fullmatch(r"To be \d{7}", text)
    assert re.fullmatch(r"[1-9]\d* True", record)
    assert Path(mine) == tmp_path / "home" / "cache" / "llmtutor" / "results" / "mine.json"
    assert Path(mine).is_file()
    after = {path: path.stat().st_size for path in site.rglob("*") if path.suffix != ".pyc"}
    assert {p: size for p, size in after.items() if p.name != "__pycache__"} == before


def test_studies_are_listed(run: Run, tmp_path: Path) -> None:
    said = run("-m", "llmtutor", "experiment", "list").stdout
    assert re.search(r"^staircase +(\d+)/\1 ", said, re.M)
    assert f"your own runs: {tmp_path / 'home' / 'cache' / 'llmtutor' / 'results'}" in said


# A learner's afternoon ---------------------------------------------------------------------------

WRONG = """\
def attend(q, k, v):
    return softmax(k @ q) @ v


check("attention.attend", attend)"""
RIGHT = WRONG.replace("k @ q", "k @ q / len(q) ** 0.5")


class Session:
    """A chapter that is open in front of a learner."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.book = nbformat.read(path, as_version=4)
        where = {"metadata": {"path": str(path.parent)}}
        self.client = NotebookClient(self.book, timeout=60, resources=where)

    def tagged(self, tag: str) -> int:
        """The first cell that has this tag."""
        return next(i for i, c in enumerate(self.book.cells) if tag in c.metadata.get("tags", []))

    def run(self, index: int, source: str | None = None) -> str:
        """Run a cell, with another text if one is given: what it prints."""
        if source is not None:
            self.book.cells[index].source = source
        cell = self.client.execute_cell(self.book.cells[index], index)
        return "".join(output.get("text", "") for output in cell.outputs)

    def save(self) -> None:
        nbformat.write(self.book, self.path)


def updated(site: Path, folder: Path) -> Path:
    """The packages after an update: a later version, in which two chapters have changed."""
    later = folder / "site"
    inside = later / "llmtutor"
    inside.parent.mkdir()
    for path in site.rglob("*"):
        if path.is_file() and path.suffix != ".pyc":
            target = later / path.relative_to(site)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.link(path, target)
    changes = {
        inside / "__init__.py": (llmtutor.__version__, "9.0"),
        later / INSIDE / "chapters" / "04_attention.ipynb": ('"# Attention', '"# Attention, again'),
        later / INSIDE / "chapters" / "05_positions.ipynb": ('"# Positions', '"# Positions, again'),
    }
    for path, (old, new) in changes.items():
        text = path.read_text(encoding="utf-8")
        assert old in text, path.name
        path.unlink()  # else the link would change its origin too
        path.write_text(text.replace(old, new), encoding="utf-8", newline="\n")
    return later


def test_an_afternoon(
    site: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the start page through an exercise to an update; nothing of the learner's is lost."""
    work = tmp_path / "empty" / "my-work"
    said = run("-m", "llmtutor", "start", "my-work").stdout
    assert "Begin with: jupyter lab " in said and (work / "START.ipynb").is_file()

    for name, value in away(site, tmp_path / "home").items():
        monkeypatch.setenv(name, value)  # the kernel inherits it
    chapter = Session(work / "04_attention.ipynb")
    imports = next(i for i, c in enumerate(chapter.book.cells) if c.cell_type == "code")
    asked, solution = chapter.tagged("exercise"), chapter.tagged("solution")
    with chapter.client.setup_kernel():
        chapter.run(imports)
        assert "The scores are not scaled" in chapter.run(asked, WRONG)
        accepted = chapter.run(asked, RIGHT)
        assert accepted == chapter.run(solution) and "not scaled" not in accepted
    chapter.save()
    mine = chapter.path.read_bytes()

    later = updated(site, tmp_path)
    said = run("-m", "llmtutor", "start", "my-work", site=later).stdout
    n_chapters = len(list((site / INSIDE / "chapters").iterdir()))
    assert f"{n_chapters} chapters of llmtutor 9.0" in said
    assert "brought up to date: 05_positions" in said
    assert "04_attention.ipynb → 04_attention.new.ipynb" in said
    assert chapter.path.read_bytes() == mine
    assert "# Attention, again" in (work / "04_attention.new.ipynb").read_text(encoding="utf-8")
    assert "# Positions, again" in (work / "05_positions.ipynb").read_text(encoding="utf-8")

    run("-m", "llmtutor", "start", "my-work", "--reset", "04_attention", site=later)
    (backup,) = (work / "backups").iterdir()
    assert backup.read_bytes() == mine
    assert "# Attention, again" in chapter.path.read_text(encoding="utf-8")
