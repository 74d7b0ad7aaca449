"""Drawings of chapter 23: parts of a file with their bytes, scales counted, codes in bytes."""

import re

import pytest
import torch

from llmtutor.interop.quantize.packing import pack
from llmtutor.viz.diagrams.export import draw_bytes, draw_file, draw_sharing


def test_a_file_shows_each_part_with_its_bytes() -> None:
    drawing = draw_file("a file", [("header", "two counts", 24), ("data", "numbers", 9_976)])
    assert "24 bytes" in drawing.shape.body and "9,976 bytes" in drawing.shape.body
    assert ">99.8%<" in drawing.shape.body and "10,000 bytes in all" in drawing.description
    with pytest.raises(ValueError, match="at least one part"):
        draw_file("a file", [])


def test_scales_are_counted() -> None:
    drawing = draw_sharing(rows=3, columns=8, group=4)
    assert re.findall(r": (\d+)\.", drawing.description) == ["1", "3", "6"]
    assert drawing.shape.body.count('class="lt-norm"') == 1 + 3 + 6 + 3  # and three frames


def test_bytes_are_those_of_pack() -> None:
    codes = [9, 4, 11, 15, 7]
    stored = pack(torch.tensor(codes, dtype=torch.uint8), 4).tolist()
    drawing = draw_bytes(codes)
    assert drawing.description.endswith(f"the bytes are {', '.join(map(str, stored))}.")
    shown = re.findall(r">([01]{4})<", drawing.shape.body)
    pairs = zip(shown[::2], shown[1::2], strict=True)
    assert [int(high + low, 2) for high, low in pairs] == stored
