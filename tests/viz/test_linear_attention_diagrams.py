"""The drawings of chapter 25, against the tensors that they are made from."""

import xml.etree.ElementTree as ET

import torch

from llmtutor.viz.diagrams.linear_attention import draw_chunks, draw_reads, draw_writes
from llmtutor.viz.diagrams.shapes import Drawing

KEYS = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
STATES = torch.tensor([[[1.0, 0.0], [0.0, 0.0]], [[1.0, 0.6], [0.0, 0.8]]])


def words_of(drawing: Drawing) -> list[str]:
    return ["".join(t.itertext()) for t in ET.fromstring(drawing.svg()).iter() if t.text]


def test_writes_show_keys_values_and_the_state_after_each() -> None:
    drawing = draw_writes(("one", "two"), KEYS, torch.eye(2), STATES, ("a", "b"))
    assert {"0.60", "0.80", "one", "two"} <= set(words_of(drawing))
    assert "“two” writes 0.00 1.00 under the key 0.60 0.80" in drawing.description
    assert drawing.description.endswith("(1.00 0.60) and (0.00 0.80).")


def test_reads_are_the_product() -> None:
    drawing = draw_reads(("one", "two"), KEYS, STATES[-1], ("a", "b"))
    assert "one 1.00 0.60; two 0.60 1.00 (a, b)" in drawing.description


def test_pairs_are_inside_a_chunk_or_go_through_a_state() -> None:
    drawing = draw_chunks(12, 4)
    assert "Of the 78 pairs" in drawing.description and "30 lie inside" in drawing.description
    body = drawing.svg()
    assert (
        body.count('<path class="lt-hatch"') == 66 and body.count('<circle class="lt-state"') == 4
    )
