"""What chapter 15 says in numbers that no output shows."""

import pytest

from llmtutor.layers.part import Load, Site
from llmtutor.model.published import PUBLISHED

V2 = PUBLISHED["deepseek-v2"].blocks[0].mixer
SITE = Site(5120, 163_840, 60)


def flops_of_a_past_token(at_once: bool) -> int:
    """What one token more in the cache adds to a step."""
    first, second = (V2.costs(SITE, Load(1, seq, at_once=at_once)).flops for seq in (1000, 1001))
    return second - first


def test_absorbing_costs_more_than_heads_and_far_less_than_making_keys() -> None:
    absorbed, whole = flops_of_a_past_token(False), flops_of_a_past_token(True)
    multi_head = 2 * 128 * (128 + 128)
    assert absorbed == 2 * 128 * (512 + 64 + 512) and 4.2 < absorbed / multi_head < 4.3
    made_again = 2 * 512 * 128 * (128 + 128) + whole
    assert round(made_again / 1e6, 1) == 33.6 and 120 < made_again / absorbed < 121
    assert round(absorbed / (2 * 576)) == 242 and round(989 / 3.35) == 295
    assert round(2 * 2 * 128 * 128 / (2 * 576)) == 57


def test_where_the_two_paths_meet() -> None:
    """Operations of a head for each past token, with s queries at once."""
    made, each, wide = 2 * 512 * (128 + 128), 2 * (128 + 64 + 128), 2 * (512 + 64 + 512)
    assert (made, each, wide) == (262_144, 640, 2_176)
    assert 170 < made / (wide - each) < 171


def test_the_abstract_compares_two_whole_models() -> None:
    """60 layers of 576 numbers in 6 bits, 95 layers of 8 KV heads of 128 in 16."""
    before, after = 95 * 2 * 8 * 128, 60 * 576
    assert 100 * (1 - 6 * after / (16 * before)) == pytest.approx(93.3, abs=0.05)


def test_what_a_long_text_weighs() -> None:
    length = 131_072
    assert round(60 * length * 2 * 128 * 128 * 2 / 1e9) == 515
    assert round(60 * length * 576 * 2 / 1e9, 1) == 9.1
    assert round(2 * 16 * 128 / 576) == 7  # V2-Lite, a seventh
