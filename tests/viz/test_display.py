"""A shown figure is one output with a picture and its text, and is closed."""

import base64

import matplotlib.pyplot as plt
import pytest

from llmtutor.viz import alt_text, display, lines, show
from llmtutor.viz.display import svg


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list:
    calls: list = []
    monkeypatch.setattr(display, "display", lambda data, **options: calls.append((data, options)))
    return calls


def test_one_output_holds_picture_and_text(shown: list) -> None:
    fig = lines([1, 2], {"a": [3, 4]}, x_label="x (m)", y_label="y (m)")
    text = alt_text(fig)
    show(fig)
    ((data, options),) = shown
    assert set(data) == {"image/png", "text/plain"}
    assert (
        data["text/plain"]
        == text
        == "x axis: x (m). y axis: y (m). Line “a”: from 3 at 1 to 4 at 2."
    )
    assert options["raw"] is True
    picture = base64.b64decode(data["image/png"])
    assert picture.startswith(b"\x89PNG")
    width = int.from_bytes(picture[16:20], "big")
    assert width == 2 * options["metadata"]["image/png"]["width"] == 1360


def test_a_figure_of_pyplot_is_closed(shown: list) -> None:
    fig, ax = plt.subplots()
    ax.plot([1, 2], label="a")
    show(fig)
    assert not plt.fignum_exists(fig.number)


def test_svg_is_small_and_has_text_as_text() -> None:
    fig = lines([1, 2], {"a <b>": [3, 4]}, x_label="x (m)", y_label="y (m)")
    drawing = svg(fig, "salt")
    assert drawing.startswith("<svg") and drawing.endswith("</svg>\n")
    assert ">a &lt;b&gt;</text>" in drawing
    assert "sans-serif" in drawing
    assert len(drawing) < 20_000
