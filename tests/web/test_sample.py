"""The knobs of the page mean what those of chapter 21 mean."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from llmtutor.generate.sampling import Sampler
from llmtutor.web.engine import OFFERS

Run = Callable[..., Any]
KNOBS: list[dict[str, Any]] = [
    {},
    {"temperature": 0.3},
    {"temperature": 1.7, "top_k": 5},
    {"top_k": 1},
    {"top_k": 1000},
    {"top_p": 0.47},
    {"top_p": 0.055},
    {"temperature": 0.8, "top_k": 40, "top_p": 0.91},
]
NAMES = {"top_k": "topK", "top_p": "topP"}
FILTERED = """
return given.map(({ logits, knobs }) => [...engine.filtered(Float32Array.from(logits), knobs)]);
"""


def test_the_distribution_is_that_of_the_sampler(js: Run) -> None:
    torch.manual_seed(0)
    rows = [torch.randn(60) * 3 for _ in range(20)]
    rows += [torch.zeros(60), torch.arange(60) // 7 * 0.5, torch.tensor([5.0] * 3 + [1.0] * 57)]
    cases = [(row, knobs) for row in rows for knobs in KNOBS]
    given = [
        {"logits": row.tolist(), "knobs": {NAMES.get(k, k): v for k, v in knobs.items()}}
        for row, knobs in cases
    ]
    for (row, knobs), found in zip(cases, js(FILTERED, given), strict=True):
        expected = Sampler(**knobs).probabilities(row[None], torch.tensor([[0]]))[0]
        probs = torch.tensor(found, dtype=torch.float32)
        torch.testing.assert_close(probs, expected, atol=1e-6, rtol=1e-5)


def test_without_temperature_the_first_of_the_likeliest(js: Run) -> None:
    given = [{"logits": [1, 3, 3, 2], "knobs": {"temperature": 0}}]
    assert js(FILTERED, given) == [[0, 1, 0, 0]]


@pytest.mark.parametrize("top_p", [1, 0.75])
def test_what_is_drawn_has_the_distribution(js: Run, top_p: float) -> None:
    code = """
    const [random, counts] = [engine.seeded(3), [0, 0, 0]];
    const logits = Float32Array.from([0.5, 0.3, 0.2], Math.log);
    const probs = engine.filtered(logits, { topP: given });
    for (let i = 0; i < 20000; i++) counts[engine.draw(probs, random)]++;
    return counts;
    """
    counts = js(code, top_p)
    expected = [0.5, 0.3, 0.2] if top_p == 1 else [0.625, 0.375, 0]
    for count, p in zip(counts, expected, strict=True):
        # Five standard deviations of a binomial count.
        assert abs(count - 20000 * p) <= 5 * math.sqrt(20000 * p * (1 - p))


def test_a_seed_decides_and_another_does_otherwise(js: Run) -> None:
    code = """
    const three = (random) => [random(), random(), random()];
    return [1, 1, 2].map((seed) => three(engine.seeded(seed)));
    """
    first, again, other = js(code)
    assert first == again != other and all(0 <= x < 1 for x in first)


def test_what_a_page_calls_is_there(js: Run) -> None:
    assert js("return Object.keys(engine);") == OFFERS.split(", ")
