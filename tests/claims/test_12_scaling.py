"""Chapter 12: what its page says of its records, recomputed; and that it says nothing else."""

import math
import re
from functools import cache
from pathlib import Path

import nbformat
import numpy as np
import pytest
from scipy.optimize import minimize

from llmtutor.evaluate.compare import compare, holm, t_interval
from llmtutor.experiments import budgets, feed_forward, mup
from llmtutor.experiments.scaling import Law, Prediction, bootstrap, compute_optimal, fit_law
from llmtutor.experiments.staircase import steps
from llmtutor.experiments.studies import (
    BATCH_RATES,
    HELD_OUT,
    TOKENS,
    TYING,
    TYING_RATES,
    WIDTHS,
    means,
    measurements,
    n_params,
)
from llmtutor.experiments.study import load_record
from llmtutor.experiments.training import model_config, tokens
from llmtutor.model.accounting import backward_flops, forward_flops, parameters
from llmtutor.viz.diagrams.scaling import draw_mup

PAGE = Path(__file__).parents[2] / "book" / "chapters" / "12_scaling.ipynb"


@cache
def prose() -> str:
    cells = nbformat.read(PAGE, as_version=4).cells
    return "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


@pytest.fixture(scope="module")
def sizes() -> tuple[np.ndarray, np.ndarray]:
    return measurements(load_record("sizes"))


def scatter() -> np.ndarray:
    """Differences of the two seeds, (width, length)."""
    record = load_record("sizes")
    pairs = [
        [run["valid_loss"] for run in record.results(d_model=d, n_tokens=n)]
        for d in WIDTHS
        for n in TOKENS
    ]
    return np.diff(pairs, axis=1).reshape(len(WIDTHS), len(TOKENS))


def deviation(differences: np.ndarray) -> float:
    """Of one run: a difference of two has twice its variance."""
    return float(np.sqrt(np.mean(differences**2) / 2))


def test_what_the_count_leaves_out_of_the_narrowest_model() -> None:
    config = model_config(16, 2, 84)
    count = parameters(config)
    assert count.embedding / count.non_embedding == pytest.approx(0.20, abs=0.005)
    exact = (forward_flops(config, 16, 64) + backward_flops(config, 16, 64)) / (16 * 64)
    assert 0.4 < 1 - 6 * count.non_embedding / exact < 0.5  # "nearly half of its work"
    assert "would add 20 %" in prose() and "nearly half of the work" in prose()


def test_one_rate_for_two_widths_gives_any_answer() -> None:
    losses = means(load_record("learning-rate"), "d_model", "lr")
    best = {d: min(loss for (w, _), loss in losses.items() if w == d) for d in (16, 96)}
    gap = best[16] - best[96]
    assert round(gap, 2) == 0.22 and round(gap / math.log(2), 2) == 0.32
    assert 28 < n_params(96) / n_params(16) < 35  # "thirty times the parameters"
    assert "0.22 nats (0.32 bits per byte)" in prose()


def test_the_rule_for_the_rate_is_used_outside_its_widths_and_its_length() -> None:
    tried = means(load_record("learning-rate"), "d_model", "lr")
    assert max(WIDTHS) == max(d for d, _ in tried) < HELD_OUT["d_model"]
    lengths = {run["settings"]["n_tokens"] for run in load_record("learning-rate").runs}
    assert len(lengths) == 1 and not lengths & {*TOKENS, HELD_OUT["n_tokens"]}
    assert "other lengths and once at a larger width, unchecked" in prose()


def test_small_batches_win_and_the_largest_has_its_rate_at_an_end() -> None:
    losses = means(load_record("batch-size"), "batch_size", "lr")
    of = {b: {lr: losses[b, lr] for lr in BATCH_RATES} for b in (4, 16, 64)}
    best = {b: min(rates, key=rates.__getitem__) for b, rates in of.items()}
    assert best[64] == max(BATCH_RATES) and max(best[4], best[16]) < max(BATCH_RATES)
    gaps = [of[b][best[b]] - of[4][best[4]] for b in (16, 64)]
    at_one = [of[b][0.008] - of[4][0.008] for b in (16, 64)]
    assert [round(gap, 1) for gap in gaps] == [0.1, 0.4]
    assert all(one > gap + 0.05 for one, gap in zip(at_one, gaps, strict=True))
    assert "is an end of what was tried" in prose()


def tying_at_best() -> dict[str, dict[int, float]]:
    record, found = load_record("tying"), {}
    for name, model in TYING.items():
        at = {
            lr: [run["valid_loss"] for run in record.results(model=model, lr=lr)]
            for lr in TYING_RATES
        }
        best = min(at, key=lambda lr: sum(at[lr]))
        assert min(TYING_RATES) < best < max(TYING_RATES)
        runs = [run["settings"] for run in record.runs if run["settings"]["lr"] == best]
        assert [r["seed"] for r in runs if r["model"] == model] == [0, 1, 2]  # as they are paired
        found[name] = dict(enumerate(at[best]))
    return found


def test_verdicts_of_tying() -> None:
    untied, output, embedding = tying_at_best().values()
    pairs = [(untied, output), (untied, embedding), (output, embedding)]
    found = [compare(a, b) for a, b in pairs]
    adjusted = holm([one.p_value for one in found])
    assert round(found[0].difference, 2) == -0.30 and adjusted[0] < 0.05
    assert all(untied[seed] < output[seed] for seed in untied) and len(untied) == 3
    assert adjusted[2] > 0.05 and "not distinguishable at their best rates" in prose()
    record = load_record("tying")
    for lr in TYING_RATES[:2]:  # the smaller rates
        out, emb = ([r["valid_loss"] for r in record.results(model=TYING[n], lr=lr)]
                    for n in list(TYING)[1:])  # fmt: skip
        assert max(out) + 0.1 < min(emb)


def test_a_start_as_an_embedding_begins_seven_times_as_high() -> None:
    record = load_record("tying")
    first = {
        name: [run["curve"] for run in record.results(model=model, lr=0.008)]
        for name, model in TYING.items()
    }
    loss = {name: np.mean([c["loss"][0] for c in curves]) for name, curves in first.items()}
    norm = {name: np.mean([c["grad_norm"][0] for c in curves]) for name, curves in first.items()}
    untied, output, embedding = TYING
    assert loss[embedding] / math.log(1024) == pytest.approx(7.2, abs=0.3)
    assert max(loss[untied], loss[output]) < math.log(1024) + 0.1
    assert norm[embedding] > 10 * norm[output] and norm[output] < 1


def test_characters_for_each_token_of_the_tokenizer_of_tying() -> None:
    _, valid, size = tokens(1024)
    _, characters, _ = tokens()
    assert (len(characters), len(valid), size) == (476_650, 205_493, 1024)


def test_noise_is_not_the_same_at_every_width_and_weighting_moves_a_constant(sizes) -> None:
    differences = scatter()
    narrow, wide = deviation(differences[:3]), deviation(differences[4:])
    assert (round(narrow, 3), round(wide, 3)) == (0.036, 0.005)
    x, loss = sizes
    assert 1.3 < loss.max() / loss.min() < 1.4  # "differ by a third"
    by_width = np.array([deviation(row) for row in differences]).clip(0.005)
    plain, weighted = (weighted_law(x, loss, weights) for weights in (np.ones(6), by_width**-2))
    assert (round(plain.exponents[1], 2), round(weighted.exponents[1], 2)) == (0.39, 0.26)
    at = n_params(HELD_OUT["d_model"]), HELD_OUT["n_tokens"] // 1024 * 1024
    assert round(abs(plain(*at) - weighted(*at)), 3) == 0.003
    assert "from 0.39 to 0.26" in prose() and "by 0.003" in prose()


def weighted_law(x: np.ndarray, loss: np.ndarray, by_width: np.ndarray) -> Law:
    """Least squares with a weight for each width."""
    weights = np.sqrt(np.repeat(by_width, len(TOKENS)))[:, None]
    best, law = math.inf, None
    for alpha in np.geomspace(0.25, 0.45, 60):
        for beta in np.geomspace(0.2, 0.5, 90):
            columns = np.stack([x[:, 0] ** 0, x[:, 0] ** -alpha, x[:, 1] ** -beta], axis=1)
            found = np.linalg.lstsq(columns * weights, loss * weights[:, 0], rcond=None)[0]
            error = float(((columns @ found - loss) ** 2 @ weights**2).item())
            if error < best and (found >= 0).all():
                best, law = error, Law(found[0], (found[1], found[2]), (alpha, beta))
    assert law is not None
    return law


def test_errors_of_a_width_go_together(sizes) -> None:
    """At the two longer lengths; runs of one width share their rate and their seeds."""
    x, loss = sizes
    law = fit_law(x, loss)
    errors = {(n, d): value - law(n, d) for (n, d), value in zip(x, loss, strict=True)}
    _, second, third = np.unique(x[:, 1])
    middle, long = ([errors[n, d] for n in np.unique(x[:, 0])] for d in (second, third))
    assert np.corrcoef(middle, long)[0, 1] > 0.8
    assert "errors of a width go together" in prose()
    assert tuple(x[-1]) == (n_params(96), third)  # the one that the drawing shows as measured


def test_from_two_lengths_most_laws_of_the_bootstrap_have_a_floor_near_zero(sizes) -> None:
    """The corner that a fit of all five constants takes."""
    x, loss = sizes
    short = x[:, 1] < 500_000
    laws, _ = bootstrap(x[short], loss[short])
    assert np.mean([law.floor < 0.1 for law in laws]) > 0.5
    laws, _ = bootstrap(x, loss)  # a third length lifts it
    assert np.mean([law.floor > 0.5 for law in laws]) > 0.95


def test_the_longest_runs_against_counting(sizes) -> None:
    x, loss = sizes
    long = loss[x[:, 1] > 500_000]
    trigram, four = (
        load_record("feed-forward").results(form=form)[0]["valid_loss"]
        for form in ("trigram", "4-gram")
    )
    assert sum(long > trigram) == 1 and long[0] > trigram and min(long) > four


def test_the_bet_was_written_before_the_run_and_held() -> None:
    record = load_record("held-out")
    bet = Prediction(**record.plan["prediction"])
    outcome = np.mean([run["result"]["valid_loss"] for run in record.runs])
    assert all(run["started"] >= record.planned for run in record.runs)
    assert outcome in bet and f"{outcome:.3f} nats" in prose()
    assert f"{outcome / math.log(2):.3f} bits per byte" in prose()
    assert f"where {bet.loss:.3f} was promised" in prose()
    x, _ = measurements(load_record("sizes"))
    compute = record.plan["n_params"] * record.plan["n_tokens"] / np.prod(x, axis=1).max()
    assert 2.3 < compute < 2.5


def test_the_best_division_is_flat_and_that_of_others_is_18_or_98_tokens(sizes) -> None:
    law = fit_law(*sizes)
    best, length = compute_optimal(law, 1e12)
    lost = [law(best * tilt, length / tilt) - law(best, length) for tilt in (0.5, 2, 10)]
    assert 0 < max(lost[:2]) < 0.02 and lost[2] > 0.1
    printed = Law(1.69, (406.4, 410.7), (0.34, 0.28))
    refit = Law(1.8172, (482.01, 2085.43), (0.3478, 0.3658))
    ratios = [d / n for n, d in (compute_optimal(one, 1e24) for one in (printed, refit))]
    assert [round(ratio) for ratio in ratios] == [98, 18]
    assert "98 tokens a parameter" in prose() and "theirs ask for 18" in prose()


def test_the_smallest_of_equals_is_dearer_to_train_and_cheapest_to_have() -> None:
    refit = Law(1.8172, (482.01, 2085.43), (0.3478, 0.3658))
    loss, training, whole = refit(13e9, 20 * 13e9), {}, {}
    for n in (26e9, 13e9, 7e9):
        d = (refit.coefficients[1] / (loss - refit(n, math.inf))) ** (1 / refit.exponents[1])
        training[n], whole[n] = 6 * n * d, 6 * n * d + 2 * n * 2e12
    assert min(whole, key=whole.__getitem__) == 7e9 and min(training) == 7e9
    assert sorted(training, key=training.__getitem__) == [13e9, 26e9, 7e9]


def test_widths_of_the_drawing_are_those_of_the_text() -> None:
    assert "rate η / 8" in draw_mup(32, 256, 84).description and "eight times as far" in prose()


def test_the_last_rung_reads_two_and_a_half_tokens_a_parameter() -> None:
    rungs = {step.rung: step for step in steps(load_record("staircase"))}
    gain = rungs["training"].bits_per_byte - rungs["longer"].bits_per_byte
    assert round(gain, 2) == 0.16 and "0.16 bits per byte" in prose()
    run = load_record("staircase").results(rung="longer")[0]
    read = run["steps"] * 8 * 256
    assert (round(read / 1e6, 1), round(read / run["n_params"], 1)) == (7.6, 2.5)
    assert f"{run['n_params']:,} parameters" in prose()
    before = load_record("staircase").results(rung="training")[0]
    assert run["bytes_seen"] == 4 * before["bytes_seen"]


def test_a_fit_to_a_mean_stops_early_and_one_to_the_sum_does_not(sizes) -> None:
    """The bug: SciPy's tolerance is absolute for objectives below 1."""
    x, loss = sizes

    def fitted(average) -> tuple[Law, int]:
        def objective(constants: np.ndarray) -> float:
            a, b, e, alpha, beta = constants
            terms = a - alpha * np.log(x[:, 0]), b - beta * np.log(x[:, 1]), e + 0 * x[:, 0]
            error = np.abs(np.logaddexp.reduce(terms) - np.log(loss))
            return average(np.where(error < 1e-3, error**2 / 2, 1e-3 * (error - 5e-4)))

        found = minimize(objective, [0, 0, 0, 0.3, 0.3], method="L-BFGS-B")
        assert found.success
        a, b, e, alpha, beta = found.x
        return Law(math.exp(e), (math.exp(a), math.exp(b)), (alpha, beta)), found.nit

    hasty, few = fitted(np.mean)
    patient, more = fitted(np.sum)
    missed, missed_by_sum, best = (
        np.abs([law(*row) for row in x] - loss).mean() for law in (hasty, patient, fit_law(x, loss))
    )
    assert few < 10 < more and missed > 10 * best and missed_by_sum < 0.015
    bet = load_record("held-out").plan
    at = bet["n_params"], bet["n_tokens"]
    assert round(hasty(*at) - 1.83, 1) == 0.2 and round(patient(*at), 2) == 1.83


def test_conclusions_that_were_wrong_are_gone() -> None:
    text = " ".join(prose().split())
    gone = ("all of them above", "no error is left", "any consistent count", "to blame",
            "near that of Chinchilla", "Two seeds cannot tell which ours are")  # fmt: skip
    assert not [words for words in gone if words in text]
    assert re.search(r"an interval knows only", text, re.I)


def test_best_sizes_grow_with_the_budget_more_than_the_law_says(sizes) -> None:
    record = load_record("isoflop")
    flops = np.log(list(budgets.BUDGETS.values()))
    found = np.array([budgets.best_sizes(record, budget) for budget in budgets.BUDGETS])
    assert found.shape == (3, budgets.SEEDS, 2)
    slopes = np.polyfit(flops, np.log(found[:, :, 0]), 1)[0]  # one for each seed
    assert slopes == pytest.approx(budgets.growth(record))
    low, high = t_interval(slopes)
    assert f"C^{{{slopes.mean():.2f}}}" in prose()
    alpha, beta = fit_law(*sizes).exponents
    assert f"= {beta / (alpha + beta):.2f}" in prose()
    assert 0.5 < beta / (alpha + beta) < low < slopes.mean() < high
    low, high = t_interval(budgets.growth(record, 3))
    assert low < 0.5 < beta / (alpha + beta) < high  # the other choice holds both
    best = np.exp(np.log(found[:, :, 0]).mean(axis=1))
    ratios = [budgets.BUDGETS[b] / 6 / n**2 for b, n in zip(budgets.BUDGETS, best, strict=True)]
    small, _, large = (f"{ratio:.0f} characters" for ratio in ratios)
    assert small in prose() and large.split()[0] in prose()


def test_half_or_twice_the_best_size_costs_little_and_counting_is_not_beaten() -> None:
    record = load_record("isoflop")
    costs, scatter = [], []
    for budget in budgets.BUDGETS:
        by_width = budgets.losses_of(record, budget)
        x = np.log([n_params(d) for d in by_width])
        y = np.array([list(by_seed.values()) for by_seed in by_width.values()])
        costs += [np.polyfit(x, of_seed, 2)[0] * math.log(2) ** 2 for of_seed in y.T]
        scatter.append(float(y.std(axis=1, ddof=1).mean()))
    assert round(float(np.mean(costs)), 2) == 0.03
    assert 0.02 < scatter[0] < 0.06
    lowest = np.mean([loss for _, loss in budgets.best_sizes(record, "large")])
    four = feed_forward.losses(load_record("feed-forward"), "4-gram")[0] * math.log(2)
    assert f"{lowest:.2f} nats" in prose() and f"4-gram has {four:.2f}" in prose()


def test_the_best_rate_of_mup_stays_within_a_step_and_the_other_does_not() -> None:
    record = load_record("mup")
    by_rate = {is_mup: mup.by_rate(record, is_mup) for is_mup in (False, True)}
    best = {k: [min(at, key=at.__getitem__) for at in by.values()] for k, by in by_rate.items()}
    assert best == {True: [0.032, 0.016, 0.032, 0.016], False: [0.032, 0.016, 0.004, 0.002]}
    widest = {k: by[256] for k, by in by_rate.items()}
    cost = {k: round(at[0.032] - min(at.values()), 2) for k, at in widest.items()}
    assert cost == {True: 0.02, False: 0.47}
    assert abs(min(widest[True].values()) - min(widest[False].values())) < 0.02
    assert (mup.N_LAYERS, mup.STEPS, mup.SEEDS) == (2, 400, 2)


def test_what_further_readings_are_worth(sizes) -> None:
    record = load_record("repeated")
    losses = {
        epochs: [result["valid_loss"] for result in record.results(epochs=epochs)]
        for epochs in budgets.EPOCHS
    }
    mean = {epochs: float(np.mean(values)) for epochs, values in losses.items()}
    assert {len(values) for values in losses.values()} == {budgets.REPEATED_SEEDS} == {2}
    assert round(mean[2] - mean[1], 2) == 0.05 and "by 0.05 nats" in prose()
    assert max(max(losses[e]) - min(losses[e]) for e in (1, 2, 4, 8)) < 0.015
    different = record.results(epochs=4)[0]["different"]
    once = fit_law(*sizes)(n_params(budgets.REPEATED_WIDTH), different)
    assert TOKENS[0] < different < TOKENS[-1]  # inside of what the law was fitted to
    said = f"Read once it would give {once:.2f} nats by our law, read four times it gives "
    assert said + f"{mean[4]:.2f}, and four times as much fresh text {mean[1]:.2f}" in prose()
    assert 0.4 < (once - mean[4]) / (once - mean[1]) < 0.6  # about half of the gain
    for result in record.results(epochs=32):
        marks = result["marks"]
        assert marks[str(budgets.REPEATED_STEPS)] > marks[str(budgets.REPEATED_STEPS // 2)]
        assert round(result["train_loss"], 1) == 1.1
