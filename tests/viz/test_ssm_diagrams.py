"""Drawings of chapter 19: the numbers in them are those of the objects, and they fit a phone."""

import re

import torch

from llmtutor.layers.recurrent.mamba import MambaConfig
from llmtutor.layers.recurrent.scan import sequential_scan
from llmtutor.viz.diagrams import shapes
from llmtutor.viz.diagrams.shapes import Drawing
from llmtutor.viz.diagrams.ssm import draw_doubling, draw_mamba, draw_unrolled, pairs_of


def words_of(drawing: Drawing) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", drawing.shape.body)


def test_a_state_is_drawn_with_its_numbers() -> None:
    drawing = draw_unrolled(["so", "foul"], [8.0, 0.0], [4.0, 2.0], 0.5)
    assert [w for w in words_of(drawing) if re.fullmatch(r"\d\.\d\d", w)] == ["4.00", "2.00"]
    assert words_of(drawing).count("×0.5") == 4
    quick = words_of(draw_unrolled(["so", "foul"], [8.0, 0.0], [6.0, 1.5], 0.25))
    assert quick.count("×0.25") == quick.count("×0.75") == 2
    assert "foul brings 0 and leaves the state at 2.00" in drawing.description


def test_the_last_row_of_a_doubling_holds_the_states() -> None:
    a, b = torch.tensor([0.5, 0.5, 0.5, 0.5]), torch.tensor([8.0, 0.0, 4.0, 2.0])
    rounds = [pairs_of(a, b)]
    for reach in (1, 2):
        before_a = torch.cat((torch.ones(reach), a[:-reach]))
        before_b = torch.cat((torch.zeros(reach), b[:-reach]))
        a, b = a * before_a, b + a * before_b
        rounds.append(pairs_of(a, b))
    states = sequential_scan(torch.full((1, 4), 0.5), torch.tensor([[8.0, 0.0, 4.0, 2.0]]))[0]
    assert torch.equal(b, states)
    drawing = draw_doubling(rounds)
    assert drawing.title == "A scan of 4 tokens in 2 rounds"
    filled = drawing.shape.body.count('class="lt-state"')
    assert filled == 1 + 2 + 4
    assert words_of(drawing)[-1] == f"{states[-1]:.2f}"


def test_a_product_of_many_factors_is_not_printed_as_nothing() -> None:
    said = words_of(draw_doubling([[(0.3, 1.0), (2.0**-8, 1.5), (1.0, 0.0)]]))
    assert said == ["0.30", "1.00", "2⁻⁸", "1.50", "1.00", "0.00"]


def test_mambas_block_is_drawn_from_its_configuration() -> None:
    drawing = draw_mamba(MambaConfig(d_state=5, expand=3, d_conv=2), 32)
    said = " ".join(words_of(drawing))
    for words in ("to 2 × 96", "over 2 tokens", "2 + 5 + 5", "Δ: 96 B: 5 C: 5", "state: 96 × 5"):
        assert words in said
    assert "C reads y from it" in drawing.description
    assert drawing.shape.width <= shapes.WIDEST
