"""Drawings of latent attention: numbers from their tensors, on the page and in words."""

import re
import xml.etree.ElementTree as ET

import pytest
import torch

from llmtutor.model.config import ModelConfig
from llmtutor.viz.diagrams import latent as draw
from llmtutor.viz.diagrams.model import part_words
from llmtutor.viz.diagrams.shapes import Drawing

WORDS = ("a", "b")
LATENTS = torch.tensor([[1.0, 1.0], [0.0, 2.0]])
UP = torch.tensor([[1.0, 1.0], [0.0, 2.0]])


def words_of(drawing: Drawing) -> list[str]:
    return ["".join(t.itertext()) for t in ET.fromstring(drawing.svg()).iter("text")]


def count(drawing: Drawing, look: str) -> int:
    return len(re.findall(f'class="lt-{look}"', drawing.shape.body))


def test_what_stays_is_in_the_drawer_and_each_head_has_the_shared_key() -> None:
    heads = torch.tensor([[[7.0, 8.0], [5.0, 6.0]], [[3.0, 4.0], [1.0, 2.0]]])
    key = torch.tensor([0.5, -0.5])
    drawing = draw.draw_latent("a", torch.ones(3), torch.tensor([9.0, 9.0]), key, heads)
    assert words_of(drawing).count("−0.5") == 1 + 2 == words_of(drawing).count("0.5")
    assert count(drawing, "plain lt-dashed") == 1 and count(drawing, "cache") == 2
    assert "These 4 numbers are kept" in drawing.description
    assert {"× W_DKV", "× W_KR,", "then RoPE", "to every head"} <= set(words_of(drawing))
    assert "head 1 the key 3 4 and the value 1 2" in drawing.description


def test_both_paths_end_in_the_same_scores() -> None:
    drawing = draw.draw_two_paths(WORDS, torch.tensor([1.0, 2.0]), UP, LATENTS)
    assert drawing.description.endswith(
        "into 1 5, which meets the latents. Both give the scores 6 10."
    )
    assert words_of(drawing).count("10") == 2  # once for each path
    assert {"make the keys", "absorb"} <= set(words_of(drawing))
    wide = UP.clone()
    wide[0, 0] = float("nan")
    with pytest.raises(ValueError, match="the two paths give other scores"):
        draw.draw_two_paths(WORDS, torch.tensor([1.0, 2.0]), wide, LATENTS)


def test_bars_are_of_one_scale_and_the_smallest_is_still_seen() -> None:
    drawing = draw.draw_numbers({"many": 1000, "half": 500, "few": 1}, marked="half")
    widths = [float(w) for w in re.findall(r'<rect class="lt-\w+" width="([\d.]+)"', drawing.svg())]
    assert widths == [draw.BAR, draw.BAR / 2, draw.THIN]
    assert count(drawing, "new") == 1 and "many 1,000, half 500, few 1" in drawing.description


def test_a_latent_layer_is_said_in_words() -> None:
    config = ModelConfig.uniform(65, 32, 2, 64, 4, 64, mixer="mla", q_rank=12, kv_rank=7)
    assert part_words(config.blocks[0].mixer) == (
        "Latent attention: 4 heads, latent of 7, queries through 12, RoPE (base 10,000), "
        "normalised latents"
    )
    bare = config.replace(position="none", latent_norm=None, nope_dim=8, q_rank=None)
    assert (
        part_words(bare.blocks[0].mixer)
        == "Latent attention: 4 heads, latent of 7, 8 plain, no latent norm"
    )
