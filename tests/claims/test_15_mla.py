"""What chapter 15 says in numbers that no output shows."""

import math

import pytest
import torch
from torch import Tensor

from llmtutor.evaluate.layout import compare_all
from llmtutor.experiments.choosing.verdicts import losses
from llmtutor.experiments.latent_conversion import CONTROL_RATES, RATES, SEARCH_RATES
from llmtutor.experiments.study import load_record
from llmtutor.layers.part import Load, Site
from llmtutor.layers.positions import Rope, YarnScaling
from llmtutor.model.accounting import parameters
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
    assert round(2 * 16 * (512 + 64 + 512) / (2 * 576)) == 30  # 128 heads on 8 cards
    assert 242 < 295 < 2 * 242


def test_two_matrices_of_the_query_are_smaller_than_their_product() -> None:
    assert round(5120 * 512 / (5120 * 128 + 128 * 512), 1) == 3.6
    assert 1536 * 512 / (1536 * 128 + 128 * 512) == 3.0


@pytest.mark.parametrize(("name", "factor"), [("deepseek-v2", 1.59), ("deepseek-v3", 1.87)])
def test_published_scores_have_a_factor_more(name, factor) -> None:
    mixer = PUBLISHED[name].blocks[0].mixer
    assert round(mixer.scale * math.sqrt(128 + 64), 2) == factor
    assert isinstance(mixer.position.scaling, YarnScaling)


def test_what_fits_beside_the_weights_on_eight_cards() -> None:
    weights = parameters(PUBLISHED["deepseek-v2"]).total * 2 / 1e9
    free = 80 - weights / 8
    latents, heads = (60 * 131_072 * n * 2 / 1e9 for n in (576, 2 * 8 * 128))
    assert round(weights) == 471 and round(free) == 21 and round(heads / 8, 1) == 4.0
    assert (free // latents, free // (heads / 8)) == (2, 5)


def test_a_factor_of_a_key_can_go_into_its_query() -> None:
    q, z, s = torch.randn(3, 5, generator=torch.Generator().manual_seed(0), dtype=torch.complex128)
    pairs = torch.view_as_real(q), torch.view_as_real(z * s)
    torch.testing.assert_close((pairs[0] * pairs[1]).sum(-1), (q * (z * s).conj()).real)
    torch.testing.assert_close(q * (z * s).conj(), (q * z.conj()) * s.conj())


def test_what_the_latent_made_one_is_two_again_past_it() -> None:
    looks, nots = torch.tensor([[0.0, 2.0, 0.0, 0.0], [0.0, 0.0, 2.0, 0.0]])
    key = torch.tensor([[1.0, 0.0, 1.0, 0.0], [0.0, 1.0, 0.0, 1.0]])
    assert (looks @ key.T).tolist() == [0, 2] and (nots @ key.T).tolist() == [2, 0]


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
    assert round(60 * length * 2 * 8 * 128 * 2 / 1e9, 1) == 32.2
    assert round(60 * length * 2 * 128 * 2 / 1e9, 1) == 4.0
    assert 6 < 515 / 80 < 7 and 8 * 9.1 < 80 < 8 * 32.2
    assert round(2 * 16 * 128 / 576) == 7  # V2-Lite, a seventh


def test_grouped_heads_are_a_case_of_a_latent() -> None:
    """Their keys or values side by side, and each head picks its part."""
    x = torch.randn(5, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    two_heads = torch.randn(2, 3, 12, generator=torch.Generator().manual_seed(1)).double()
    latent = x @ two_heads.flatten(0, 1).T
    picks = torch.eye(6, dtype=torch.float64).unflatten(0, (2, 3))
    torch.testing.assert_close(latent @ picks.mT, x @ two_heads.mT)


def test_a_turned_latent_with_a_turned_absorbed_query_sees_the_distance_alone() -> None:
    """With a factor that commutes, too, a head's own matrix goes into its query."""
    q, c = torch.randn(2, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    up = torch.randn(8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    turn = Rope(8)

    def turned(row: Tensor, position: int) -> Tensor:
        return turn.rotate(row[None], torch.tensor([position]))[0]

    near, far = (turned(q @ up, i) @ turned(c, j) for i, j in ((5, 2), (105, 102)))
    torch.testing.assert_close(near, far)
    pairs = torch.randn(2, 4, generator=torch.Generator().manual_seed(2), dtype=torch.complex128)
    factor, key = pairs
    angle = torch.polar(torch.ones(4).double(), torch.arange(4).double())
    torch.testing.assert_close(angle * (factor * key), factor * (angle * key))


def test_the_price_of_the_shared_key_is_still_falling() -> None:
    record = load_record("latent-conversion")

    def mean(method: str, numbers: int, mark: int) -> float:
        runs = [record.results(method=method, numbers=numbers, seed=s)[0] for s in range(5)]
        return sum(run["losses"][str(mark)] for run in runs) / 5

    gaps = [mean("latent", 68, mark) - mean("control", 128, mark) for mark in (25, 50, 100)]
    assert [round(gap, 3) for gap in gaps] == [0.070, 0.056, 0.033]
    assert round(mean("latent", 16, 0) - mean("latent, by texts", 16, 0), 2) == 0.14


def test_no_rate_was_the_first_or_last_of_those_tried() -> None:
    assert (len(SEARCH_RATES), len(CONTROL_RATES)) == (5, 9)
    record = load_record("latent-conversion")
    for method, rate in RATES.items():
        tried = CONTROL_RATES if method == "control" else SEARCH_RATES
        numbers = 128 if method == "control" else 32
        found = {
            r: record.results(method=method, numbers=numbers, seed=100, rate=r)[0]["valid_loss"]
            for r in tried
        }
        assert min(found, key=found.__getitem__) == rate
        assert rate not in (min(tried), max(tried))


def test_trained_from_the_start_a_latent_does_better_than_half_the_heads() -> None:
    record, gaps = load_record("choosing"), []
    for size in ("small", "middle"):
        gap = compare_all(losses(record, size), ["gqa-2"])["mla"]
        gaps.append(round(gap.difference, 2))
        assert gap.verdict == "better"
    assert gaps == [-0.04, -0.02]
