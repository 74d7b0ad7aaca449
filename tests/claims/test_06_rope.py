"""Chapter 06: a score depends on how far apart two places are, and on which of them comes first."""

import torch

from llmtutor.layers.positions.rope import Rope


def test_the_sign_of_the_distance_counts() -> None:
    rope = Rope(8)
    q, k = torch.randn(2, 1, 1, 1, 8, generator=torch.Generator().manual_seed(0))

    def score(at_q: int, at_k: int) -> float:
        turned = (rope.rotate(x, torch.tensor([at])) for x, at in ((q, at_q), (k, at_k)))
        return float((next(turned) * next(turned)).sum())

    assert abs(score(5, 2) - score(9, 6)) < 1e-5
    assert abs(score(5, 2) - score(2, 5)) > 0.1
