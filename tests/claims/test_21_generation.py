"""What chapter 21 says of greedy decoding, and of a second head."""

from itertools import product

import numpy as np

from llmtutor.evaluate.compare import compare_family
from llmtutor.experiments.multi_token import config_of, draft_rows, losses
from llmtutor.experiments.study import load_record
from llmtutor.experiments.training import SEQ_LEN
from llmtutor.layers.part import Load
from llmtutor.model.accounting import token_flops
from llmtutor.model.multi_token import second_head_costs


def first_repeat(choose, window: int, steps: int) -> int | None:
    """After how many tokens the last ``window`` tokens have been there before; None if never."""
    text, seen = [0] * window, set()
    for step in range(steps):
        if (state := tuple(text[-window:])) in seen:
            return step
        seen.add(state)
        text.append(choose(text))
    return None


def test_a_finite_window_has_to_come_back_and_a_whole_text_has_not() -> None:
    random = np.random.default_rng(0)
    table = {state: int(random.integers(4)) for state in product(range(4), repeat=3)}
    looped = first_repeat(lambda text: table[tuple(text[-3:])], 3, 4**3 + 1)
    assert looped is not None

    def counting(text: list[int]) -> int:
        """1 0 1 0 0 1 0 0 0 …: a function of the whole text that never turns in circles."""
        run = text[::-1].index(1) if 1 in text else len(text)
        return int(run > sum(text))

    text = [0]
    for _ in range(300):
        text.append(counting(text))
    tail = text[150:]
    assert all(tail[: len(tail) - p] != tail[p:] for p in range(1, 60))  # no period


def test_greedy_text_need_not_be_the_likeliest_text() -> None:
    first = {"a": 0.6, "b": 0.4}
    then = {"a": {"c": 0.5, "d": 0.5}, "b": {"c": 0.95, "d": 0.05}}
    texts = {(x, y): first[x] * then[x][y] for x in first for y in then[x]}
    greedy = max(first, key=first.__getitem__)
    assert max(texts, key=texts.__getitem__)[0] != greedy


def test_equal_means_do_not_make_a_model_calibrated() -> None:
    """Too sure in one place and too unsure in the other: entropy and loss agree on average."""
    true = [0.6, 0.9]

    def gap(said: list[float]) -> float:
        """Mean entropy of what is said, minus the mean loss under what is true."""
        pairs = [(q, p) for q, p in zip(said, true, strict=True)]
        return sum((p - q) * np.log(q / (1 - q)) for q, p in pairs) / 2

    said = [0.7, 0.9]
    low, high = 0.5, 0.9  # of what is said in the second place: find where the means agree
    for _ in range(60):
        said[1] = (low + high) / 2
        low, high = (said[1], high) if gap(said) > 0 else (low, said[1])
    assert abs(gap(said)) < 1e-9 and said[0] > true[0] and said[1] < true[1] - 0.01
    assert gap(true) == 0


def test_a_second_head_helps_at_equal_steps_and_more_steps_help_several_times_as_much() -> None:
    record = load_record("multi-token")
    plain, multi, longer = (losses(record)[name] for name in ("plain", "multi", "longer"))
    assert len(plain) == 5
    assert all(longer[seed] < multi[seed] < plain[seed] for seed in plain)
    found = compare_family({"multi": multi, "longer": longer}, plain)
    assert found["multi"].verdict == found["longer"].verdict == "better"
    assert found["longer"].difference < 3 * found["multi"].difference
    config = config_of("multi")
    share = second_head_costs(config, SEQ_LEN).flops / token_flops(config, SEQ_LEN)
    assert abs(share - 2 / 3) < 0.01


def test_where_the_two_thirds_of_a_second_head_come_from() -> None:
    """Its block 0.39 of a pass, M 0.05, the output layer again 0.22."""
    config = config_of("multi")
    load, site = Load(1, SEQ_LEN), config.site.at(config.n_layers)
    block = config.blocks[-1].costs(site, load).flops
    projection, output = 4 * config.d_model**2, 2 * config.d_model * config.vocab_size
    assert block + projection + output == second_head_costs(config, SEQ_LEN).flops
    one = token_flops(config, SEQ_LEN)
    assert [round(part / one, 2) for part in (block, projection, output)] == [0.39, 0.05, 0.22]


def test_its_proposals_are_accepted_more_often_than_those_of_the_other_drafts() -> None:
    record = load_record("multi-token")
    for result in record.results(variant="multi"):
        head, small, counts = (result["drafts"][name] for name in ("head", "small", "ngram"))
        assert head["acceptance"] > small["acceptance"] > counts["acceptance"] + 0.1
        assert counts["loss"] < head["loss"] < result["valid_loss"] - 0.1
        assert counts["loss"] < min(run["result"]["valid_loss"] for run in record.runs)


def test_accepted_most_often_is_not_fastest() -> None:
    """Tokens for the cost of a pass, one proposal a pass: 1.05, 1.40, 1.53; DeepSeek-V3's 1.82."""
    rows = draft_rows(load_record("multi-token"))
    assert [row[4] for row in rows] == ["0.75", "0.71", "0.53"]
    assert [row[5] for row in rows] == ["1.05", "1.40", "1.53"]
    assert [round((1 + alpha) / (1 + 1 / 61), 2) for alpha in (0.85, 0.9)] == [1.82, 1.87]
