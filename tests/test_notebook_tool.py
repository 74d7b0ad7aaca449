"""The tool that executes chapters: the same bytes twice, and nothing half-written."""

import json
from pathlib import Path

import nbformat
import notebook
import pytest

TEXT = """---
kernelspec:
  display_name: Python 3
  language: python
  name: python3
---

# A page

+++ {"tags": ["cost"]}

Cost.

+++

```{code-cell} ipython3
:tags: [solution, hide-cell]

print("one")
print(1 + 1)
```

```{code-cell} ipython3
from IPython.display import display
display({"image/png": "iVBORw0KGgo=", "text/plain": "A line that rises."}, raw=True)
```
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("CHAPTERS", "TEXTS"):
        (tmp_path / name.lower()).mkdir()
        monkeypatch.setattr(notebook, name, tmp_path / name.lower())
    monkeypatch.setattr(notebook, "COSTS", tmp_path / "costs.json")
    monkeypatch.setattr(notebook, "ROOT", tmp_path)
    (tmp_path / "texts" / "01_page.md").write_text(TEXT, encoding="utf-8")
    return tmp_path


def test_build_writes_an_executed_notebook_and_does_so_again(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notebook, "COST_TOLERANCE", 0.9)  # a busy machine is no other result
    notebook.build("01_page")
    path = place / "chapters" / "01_page.ipynb"
    first = path.read_bytes()
    made = nbformat.read(path, as_version=4)
    cost, printed, drawn = (made.cells[i] for i in (1, 2, 3))
    recorded = json.loads((place / "costs.json").read_text(encoding="utf-8"))["01_page"]
    assert cost.source == notebook.cost_line(recorded)
    assert recorded["seconds"] >= 1 and recorded["peak_mb"] > 10
    assert [o.text for o in printed.outputs] == ["one\n2\n"]
    assert printed.metadata["jupyter"] == {"source_hidden": True}
    assert drawn.metadata["mystnb"]["image"]["alt"] == "A line that rises."
    assert [cell.id for cell in made.cells] == ["c000", "c001", "c002", "c003"]

    notebook.edit("01_page")  # the notebook is newer: its text replaces the old one
    text = (place / "texts" / "01_page.md").read_text(encoding="utf-8")
    assert "mystnb" not in text and "source_hidden" not in text
    notebook.build("01_page")
    assert path.read_bytes() == first


def test_a_failing_cell_writes_nothing(place: Path) -> None:
    text = place / "texts" / "01_page.md"
    text.write_text(TEXT.replace("1 + 1", "1 / 0"), encoding="utf-8")
    with pytest.raises(ValueError, match=r"01_page: a cell failed, nothing was written[\s\S]*Zero"):
        notebook.build("01_page")
    assert sorted(p.name for p in place.iterdir()) == ["chapters", "texts"]
    assert not list((place / "chapters").iterdir())


def test_newer_text_is_not_overwritten(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    notebook.build("01_page")
    text = place / "texts" / "01_page.md"
    text.write_text(TEXT.replace("one", "two"), encoding="utf-8")
    notebook.edit("01_page")
    assert "two" in text.read_text(encoding="utf-8")
    assert "left as it is" in capsys.readouterr().out


def test_unknown_chapter_says_how_to_begin_one(place: Path) -> None:
    with pytest.raises(ValueError, match=r"no chapter '02_other': expected one of \['01_page'\]"):
        notebook.build("02_other")


def test_small_changes_of_cost_are_kept_out(place: Path) -> None:
    first = notebook.record_cost("01_page", 20.2, 400)
    assert notebook.record_cost("01_page", 23.0, 430) == first
    assert notebook.record_cost("01_page", 30.0, 430)["seconds"] == 30


def test_the_recorded_cost_is_kept_where_that_is_asked(place: Path) -> None:
    old = notebook.record_cost("01_page", 900.0, 9000)
    notebook.build("01_page", keep_cost=True)
    made = nbformat.read(place / "chapters" / "01_page.ipynb", as_version=4)
    assert made.cells[1].source == notebook.cost_line(old)
