"""`explore` on a page (parsed as HTML) and in a real kernel (as widgets): the same states."""

import json
import re
import sys
from html.parser import HTMLParser
from unittest import mock

import nbformat
import pytest
from matplotlib.figure import Figure
from nbclient import NotebookClient

from llmtutor.viz import explore, lines
from llmtutor.viz.explore import MOST_STATES

SIZES, CORPORA = [256, 1024, 4096], ["tales", "</script><!-- ' \" & <b>"]
WIDGET = "application/vnd.jupyter.widget-view+json"


def explore_bundle(render, **options) -> dict:
    """What `explore` displays."""
    shown: list[dict] = []
    module = sys.modules["llmtutor.viz.explore"]
    with mock.patch.object(module, "display", lambda bundle, raw: shown.append(bundle)):
        explore(render, **options)
    return shown[0]


def words(size: int, corpus: str) -> str:
    return f"<p>{corpus.replace('<', '&lt;')}: <b>{size} tokens</b></p><script>x</script>"


def picture(slope: float) -> Figure:
    return lines([0, 1], {"line": [0, slope]}, x_label="t (s)", y_label="way (m)")


class Page(HTMLParser):
    """Elements with their attributes, and the text of each script."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict]] = []
        self.scripts: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data) -> None:
        if self.elements and self.elements[-1][0] == "script":
            self.scripts[-1] += data

    def all(self, *tags: str) -> list[dict]:
        return [attrs for tag, attrs in self.elements if tag in tags]


@pytest.fixture(scope="module")
def page() -> Page:
    return Page(explore_bundle(words, name="size-box", size=SIZES, corpus=CORPORA)["text/html"])


def test_every_control_has_one_label_and_says_its_value(page: Page) -> None:
    labels = [attrs["for"] for attrs in page.all("label")]
    assert labels == ["size-box-size", "size-box-corpus"]
    assert [attrs["id"] for attrs in page.all("input", "select")] == labels
    (slider,) = page.all("input")
    assert (slider["type"], slider["min"], slider["max"], slider["value"]) == (
        "range",
        "0",
        "2",
        "0",
    )
    assert slider["aria-valuetext"] == "256"
    assert json.loads(slider["data-texts"]) == ["256", "1,024", "4,096"]
    assert json.loads(page.all("select")[0]["data-texts"]) == CORPORA
    assert len(page.all("option")) == 2


def test_ids_are_unique_and_begin_with_the_name(page: Page) -> None:
    ids = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
    assert len(set(ids)) == len(ids)
    assert all(i == "size-box" or i.startswith("size-box-") for i in ids)


def test_state_k_is_what_render_gives_for_the_kth_values() -> None:
    html = explore_bundle(words, name="size-box", size=SIZES, corpus=CORPORA)["text/html"]
    data = re.search(r'id="size-box-states">(.*?)</script>', html, re.DOTALL)[1]
    states = json.loads(data)
    assert states == [words(s, c) for s in SIZES for c in CORPORA]
    assert f'aria-live="polite">{states[0]}</div>' in html


def test_data_cannot_end_its_script() -> None:
    html = explore_bundle(words, name="n", size=SIZES, corpus=CORPORA)["text/html"]
    data = html.split('id="n-states">')[1].split("</script>")[0]
    assert "<" not in data
    assert len(json.loads(data)) == 6


def test_there_is_one_live_region_and_nothing_from_outside(page: Page) -> None:
    live = [attrs["id"] for _, attrs in page.elements if attrs.get("aria-live") == "polite"]
    assert live == ["size-box-view"]
    sources = [a[k] for _, a in page.elements for k in ("src", "href") if k in a]
    assert sources == []


def test_figures_become_pictures_with_their_text() -> None:
    bundle = explore_bundle(picture, name="slope", slope=[1, 2.5])
    page = Page(bundle["text/html"])
    (image,) = page.all("img")
    assert image["alt"] == "x axis: t (s). y axis: way (m). Line “line”: from 0 at 0 to 1 at 1."
    assert image["src"].startswith("data:image/svg+xml;base64,")
    states = re.search(r'id="slope-states">(.*?)</script>', bundle["text/html"], re.DOTALL)[1]
    alts = [Page(state).all("img")[0]["alt"] for state in json.loads(states)]
    assert alts[1].endswith("to 2.5 at 1.")
    assert bundle["text/plain"] == f"slope: slope = 1 (of 1, 2.5)\n{image['alt']}"


def test_text_says_the_first_state_and_what_can_be_moved() -> None:
    bundle = explore_bundle(
        words, name="box", labels={"size": "vocabulary size"}, size=SIZES, corpus=["a", "b"]
    )
    assert bundle["text/plain"] == (
        "box: vocabulary size = 256 (of 256, 1,024, 4,096); corpus = a (of a, b)\na: 256 tokens x"
    )
    assert '<label for="box-size">vocabulary size</label>' in bundle["text/html"]


def test_long_states_are_cut_in_the_text() -> None:
    text = explore_bundle(lambda n: "word " * 999 * n, name="b", n=[1, 2])["text/plain"]
    assert len(text.splitlines()[1]) == 600 and text.endswith("…")


@pytest.mark.parametrize(
    ("render", "values"),
    [(words, {"size": SIZES, "corpus": CORPORA}), (picture, {"slope": [1, 2]})],
)
def test_two_calls_give_the_same_bytes(render, values) -> None:
    assert explore_bundle(render, name="b", **values) == explore_bundle(render, name="b", **values)


def test_without_a_kernel_there_are_no_widgets() -> None:
    bundle = explore_bundle(words, name="b", size=SIZES, corpus=CORPORA)
    assert set(bundle) == {"text/html", "text/plain"}


def test_true_and_false_are_chosen_from_a_list_and_a_range_is_a_slider() -> None:
    html = explore_bundle(lambda a, b: f"{a}{b}", name="n", a=[True, False], b=range(3))
    page = Page(html["text/html"])
    assert [tag for tag, _ in page.elements if tag in ("select", "input")] == ["select", "input"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "Bad Name", "a": [1, 2]}, "'vocabulary-slider', received 'Bad Name'"),
        ({"name": "n"}, "nothing to move"),
        ({"name": "n", "a": [1]}, "'a' has fewer than two values"),
        ({"name": "n", "a": range(8), "b": range(8)}, "8 × 8 = 64 states, at most 60"),
        ({"name": "n", "a": [1, 2], "labels": {"b": "B"}}, "label for 'b'"),
    ],
)
def test_bad_calls_are_refused(options, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        explore(lambda **values: "x", **options)


def test_nothing_is_rendered_when_there_are_too_many_states() -> None:
    def render(a):
        raise AssertionError("rendered")

    with pytest.raises(ValueError, match="states"):
        explore_bundle(render, name="n", a=range(MOST_STATES + 1))


def test_wrong_results_of_render_are_refused() -> None:
    with pytest.raises(ValueError, match="HTML text or a Figure, received int"):
        explore_bundle(lambda a: a, name="n", a=[1, 2])
    with pytest.raises(ValueError, match="bytes on the page"):
        explore_bundle(lambda a: "x" * 1_100_000, name="n", a=[1, 2])


KERNEL = [
    """
from llmtutor.viz import explore
def render(size, corpus):
    return f"<b>{size} {corpus}</b>"
explore(render, name="box", size=[1, 2, 5], corpus=["a", "b"])
""",
    """
from ipywidgets import HTML, Dropdown, SelectionSlider
from ipywidgets.widgets.widget import _instances
made = {type(widget): widget for widget in _instances.values()}
view, slider, choice = made[HTML], made[SelectionSlider], made[Dropdown]
for slider.index in range(3):
    for choice.index in range(2):
        print(slider.label, choice.label, view.value)
print(slider.description, choice.description)
""",
]


def test_in_a_kernel_widgets_move_the_same_states() -> None:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in KERNEL])
    NotebookClient(notebook, timeout=60, kernel_name="python3").execute()
    (output,) = notebook.cells[0].outputs
    assert set(output.data) == {"text/html", "text/plain", WIDGET}
    states = json.loads(re.search(r'-states">(.*?)</script>', output.data["text/html"])[1])
    lines = notebook.cells[1].outputs[0].text.splitlines()
    assert lines[:-1] == [
        f"{size} {corpus} {states[2 * i + j]}"
        for i, size in enumerate((1, 2, 5))
        for j, corpus in enumerate("ab")
    ]
    assert lines[-1] == "size corpus"
    model = output.data[WIDGET]["model_id"]
    kinds = {k: v["model_name"] for k, v in notebook.metadata.widgets.popitem()[1]["state"].items()}
    assert kinds[model] == "VBoxModel"


def test_the_style_of_a_drawing_is_no_text() -> None:
    def drawn(size: int) -> str:
        return f"<svg><title>T</title><style>.a {{ color: red }}</style><text>{size}</text></svg>"

    bundle = explore_bundle(drawn, name="drawn", size=[1, 2])
    assert bundle["text/plain"].endswith("\nT 1")
