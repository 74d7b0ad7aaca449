"""Drawings of chapter 11: bars as long as their bytes, bits as torch has them, curves in frames."""

import re
import struct
from xml.etree import ElementTree

import pytest
import torch

from llmtutor.viz.diagrams import training as draw
from llmtutor.viz.diagrams.shapes import Drawing


def words_of(drawing: Drawing) -> list[str]:
    """Its letters in the order in which they are drawn."""
    body = ElementTree.fromstring(f"<g>{drawing.shape.body}</g>")
    return ["".join(t.itertext()) for t in body.iter("text")]


def widths(drawing: Drawing, role: str) -> list[float]:
    pattern = rf'class="lt-{role}" width="([\d.]+)" height="22"'
    return [float(w) for w in re.findall(pattern, drawing.shape.body)]


def test_a_step_shows_what_clipping_leaves_of_the_gradient() -> None:
    drawing = draw.draw_step(4.451, 2.345, 1.0, 0.004)
    assert "loss 4.45" in words_of(drawing) and "2.35 → 1.00" in words_of(drawing)
    assert "from a norm of 2.35 to 1.00" in drawing.description
    assert "0.50 → 0.50" in words_of(draw.draw_step(4.451, 0.5, 1.0, 0.004))


def test_bars_of_memory_are_as_long_as_their_bytes() -> None:
    stores = dict(zip(draw.STORES, (2e6, 2e6, 1e6, 3e6), strict=True))
    small = {name: size / 2 for name, size in stores.items()}
    drawing = draw.draw_memory({"one": small, "two": stores})
    for role, size in zip(draw.STORES.values(), stores.values(), strict=True):
        half, whole = widths(drawing, role)
        assert whole == pytest.approx(2 * half, rel=1e-3)
        assert whole == pytest.approx((draw.WIDEST - 4) * size / 8e6, rel=1e-3)
    assert "two: 8.0 MB" in words_of(drawing) and "one: 4.0 MB, of which" in drawing.description


def test_a_checkpointed_pass_keeps_the_borders_and_one_block() -> None:
    drawing = draw.draw_checkpointing(3, inside=5e6, between=1e6)
    assert [w for w in words_of(drawing) if w.endswith("MB")] == ["15 MB", "3.0 MB", "8.0 MB"]
    dashed = re.findall(r'class="(lt-\w+) lt-dashed"', drawing.shape.body)
    assert dashed == 5 * ["lt-off"]  # three blocks, and two of three in the last line


@pytest.mark.parametrize("value", [0.1, 1.0, -2.5, 3e-5])
def test_bits_are_those_that_torch_holds(value: float) -> None:
    views = {"float32": torch.int32, "float16": torch.int16, "bfloat16": torch.int16}
    for name, view in views.items():
        kind = getattr(torch, name)
        whole = int(torch.tensor([value], dtype=kind).view(view)) % 2**32
        n_bits = 1 + sum(draw.FORMATS[name])
        assert draw.bits_of(value, name) == f"{whole % 2**n_bits:0{n_bits}b}"
        assert n_bits == 8 * kind.itemsize


def test_formats_show_every_bit_and_what_is_read_back() -> None:
    drawing = draw.draw_formats(0.1)
    digits = [w for w in words_of(drawing) if w in ("0", "1")]
    whole = "".join(f"{b:08b}" for b in struct.pack(">f", 0.1))
    assert "".join(digits).startswith(whole) and len(digits) == 64
    assert "read back as 0.100000001" in drawing.description


def test_curves_stay_in_their_frame_and_the_healthy_one_is_in_each() -> None:
    healthy = draw.Panel("healthy", [(1, 4.0), (10, 2.0)], [(10, 2.1)])
    wild = draw.Panel("A", [(1, 99.0), (10, -1.0)], [(0, 4.4), (10, 99.0)])
    drawing = draw.draw_gallery([wild, wild, wild], healthy)
    lines = re.findall(
        r'<polyline class="lt-line lt-line-(\w+)"[^>]*points="([^"]+)"', drawing.svg()
    )
    points = [tuple(map(float, p.split(","))) for _, way in lines for p in way.split(" ")]
    assert all(0 <= x <= draw.PANEL[0] and 0 <= y <= draw.PANEL[1] for x, y in points)
    assert [role for role, _ in lines].count("off") == 4  # the legend and three panels
    assert "A: training from 99.00 to −1.00" in drawing.description
