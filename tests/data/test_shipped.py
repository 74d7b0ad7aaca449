"""What comes with the package, from a checkout and from a wheel."""

from pathlib import Path

import pytest

from llmtutor.data import shipped as module
from llmtutor.data.places import data_dir
from llmtutor.data.shipped import PLACES, checkout, shipped

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(("what", "holds"), [("results", "*.json"), ("chapters", "04_*.ipynb")])
def test_a_checkout_has_each_where_it_is_written(what: str, holds: str) -> None:
    assert checkout() == ROOT
    assert shipped(what) == ROOT / PLACES[what]
    assert list(shipped(what).glob(holds))


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    package = tmp_path / "llmtutor"
    package.mkdir()
    monkeypatch.setattr(module, "_package", lambda: package)
    monkeypatch.delenv("LLMTUTOR_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return package


def test_a_wheel_has_all_in_one_folder_of_the_package(installed: Path) -> None:
    assert checkout() is None
    assert shipped("results") == installed / "_shipped" / "results"
    assert data_dir() == installed.parent / "cache" / "llmtutor"


def test_a_wheel_unpacked_into_another_project_takes_nothing_for_its_checkout(
    installed: Path,
) -> None:
    (installed.parent / "pyproject.toml").touch()
    (installed.parent / "data").mkdir()
    assert checkout() == installed.parent
    (installed / "_shipped").mkdir()
    assert checkout() is None
    assert data_dir() == installed.parent / "cache" / "llmtutor"
