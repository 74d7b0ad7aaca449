"""Drawings of chapter 05: what stands in them is what schemes, buckets and slopes say."""

import math
import re
import xml.etree.ElementTree as ET

import pytest
import torch

from llmtutor.layers.attention.core import attention_weights
from llmtutor.layers.positions import (
    Alibi,
    LearnedPosition,
    NoPosition,
    Rope,
    ShawPosition,
    SinusoidalPosition,
    T5Bias,
)
from llmtutor.layers.positions.relative import t5_buckets
from llmtutor.viz.diagrams import positions as draw
from llmtutor.viz.diagrams.shapes import Drawing

SCHEMES = {
    "learned": LearnedPosition, "sinusoidal": SinusoidalPosition, "RoPE": Rope,
    "Shaw": ShawPosition, "T5": T5Bias, "ALiBi": Alibi, "none": NoPosition,
}  # fmt: skip


def words_of(drawing: Drawing) -> list[str]:
    return ["".join(t.itertext()) for t in ET.fromstring(drawing.svg()).iter("text")]


def shades(drawing: Drawing) -> list[float]:
    return [float(s) for s in re.findall(r"fill-opacity:([\d.e-]+)", drawing.shape.body)]


def test_sentences_show_below_each_word_what_it_receives() -> None:
    words = ["a", "b"]
    outputs = torch.tensor([[0.25, 0.75], [1.0, 0.0]])
    drawing = draw.draw_orders([words, words[::-1]], [outputs, outputs.flip(0)])
    names = ["of a", "of b"]
    first = [*names, "a", "0.25", "0.75", "b", "1.00", "0.00"]
    assert words_of(drawing) == [*first, *names, *first[5:], *first[2:5]]
    assert "a b: a 0.25 0.75; b 1.00 0.00. b a: b 1.00 0.00; a 0.25 0.75." in drawing.description


def test_each_scheme_stands_at_the_place_whose_hook_its_class_fills() -> None:
    assert {name: draw.hook_of(scheme) for name, scheme in SCHEMES.items()} == {
        "learned": "embed", "sinusoidal": "embed", "RoPE": "rotate", "none": "",
        "Shaw": "score_bias", "T5": "score_bias", "ALiBi": "score_bias",
    }  # fmt: skip
    drawing = draw.draw_places(SCHEMES)
    words = words_of(drawing)
    for head, names in (("add a vector", ["learned", "sinusoidal"]), ("turn q and k", ["RoPE"]),
                        ("add a number", ["Shaw", "T5", "ALiBi"])):  # fmt: skip
        at = words.index(head) + 1
        assert words[at : at + len(names)] == names
    assert "To the embedding a vector is added by learned, sinusoidal." in drawing.description
    assert drawing.description.endswith("Nowhere: none.")


def test_the_ruler_of_buckets_is_cut_where_the_function_cuts() -> None:
    drawing = draw.draw_buckets(8, 16, upto=20)
    rects = re.findall(r'<rect class="lt-\w+" [^>]*x="([\d.]+)" y="0" width="([\d.]+)"',
                       drawing.shape.body)  # fmt: skip
    unit = 344 / 20
    places = torch.arange(20)
    of = t5_buckets(-places, 8, 16)
    starts = [int(places[of == b][0]) for b in range(8)]
    assert [round(float(x) / unit) for x, _ in rects] == starts == [0, 1, 2, 3, 4, 6, 8, 12]
    assert sum(float(width) for _, width in rects) == pytest.approx(344, abs=0.1)
    assert "The first 4 buckets hold one distance each." in drawing.description
    assert "4: 4 to 5, 5: 6 to 7, 6: 8 to 11, 7: 12 to 19 and all beyond" in drawing.description


def test_shades_of_slopes_are_the_factors_on_a_weight() -> None:
    drawing = draw.draw_slopes(4, upto=8)
    found = shades(drawing)
    assert len(found) == 4 * 9
    for head, slope in enumerate(Alibi(4).slopes):
        for distance in range(9):
            expected = math.exp(-slope * distance)
            assert found[9 * head + distance] == pytest.approx(expected, abs=0.006)
    assert "head 1 with slope 1/4 leaves 0.78 at 1, 0.14 at 8" in drawing.description
    assert "head 4, 1/256" in words_of(drawing)


def test_arcs_lead_from_the_queries_to_their_letters() -> None:
    puzzles = {"copy": ("ab>a", [2, 3], [0, 1]), "reverse": ("ab<b", [2, 3], [1, 0])}
    drawing = draw.draw_asked(puzzles)
    step = (draw.WIDEST - 8) / 4
    arcs = re.findall(r'd="M([\d.]+) [\d.]+ C[\d. ]+ ([\d.]+) [\d.]+"', drawing.shape.body)
    ends = [(round(float(a) / step - 0.5), round(float(b) / step - 0.5)) for a, b in arcs]
    assert ends == [(2, 0), (3, 1), (2, 1), (3, 0)]
    words = words_of(drawing)
    assert words[:7] == ["copy", "a", "b", ">", "a", "2", "2"] and words[7] == "reverse"
    assert "reverse: “ab<b”, the queries look 1, 3 tokens back." in drawing.description


def test_grids_show_weights_and_hatch_the_future() -> None:
    even = attention_weights(torch.zeros(3, 2), torch.zeros(3, 2), causal=True)
    drawing = draw.draw_looks({"even": even, "self": torch.eye(3)})
    third = pytest.approx(1 / 3, abs=0.005)
    assert shades(drawing)[:12] == [1, 0.5, 0.5, third, third, third, 1, 0, 1, 0, 0, 1]
    assert drawing.shape.body.count("lt-hatch") == 3 + 3 + 1  # and one in the legend
    assert "self: the last query gives 1.00 to the key 0 back." in drawing.description
