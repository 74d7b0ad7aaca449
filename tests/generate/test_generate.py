"""Decoding against a plain loop, against transformers, with cache against without."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from llmtutor.generate import reader
from llmtutor.generate.generate import generate
from llmtutor.generate.sampling import PAD, Sampler
from llmtutor.interop.hf import save_hf

GREEDY = Sampler(greedy=True)
PROMPTS = [[3, 1, 4, 1, 5, 9, 2], [6], [5, 3, 5]]
CACHE = pytest.mark.parametrize("use_cache", [False, True], ids=["uncached", "cached"])


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@CACHE
def test_greedy_is_a_loop_over_argmax(make_model, use_cache: bool) -> None:
    model = make_model()
    texts = [list(prompt) for prompt in PROMPTS]
    for text in texts:
        for _ in range(12):
            text.append(int(model(torch.tensor([text]))[0, -1].argmax()))
    new = generate(model, PROMPTS, max_new_tokens=12, sampler=GREEDY, use_cache=use_cache)
    assert [prompt + row for prompt, row in zip(PROMPTS, new, strict=True)] == texts
    assert len({*new[0], *new[1], *new[2]}) > 3  # not one token over and over


@pytest.mark.parametrize("penalty", [1.0, 1.5])
@CACHE
def test_transformers_writes_the_same(make_model, tmp_path, penalty: float, use_cache) -> None:
    model = make_model()
    save_hf(model, tmp_path)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path)
    sampler = Sampler(greedy=True, repetition_penalty=penalty)
    new = generate(model, PROMPTS, max_new_tokens=20, sampler=sampler, use_cache=use_cache)
    for prompt, row in zip(PROMPTS, new, strict=True):
        ids = torch.tensor([prompt])
        settings = {"do_sample": False, "repetition_penalty": penalty, "max_new_tokens": 20}
        mask = torch.ones_like(ids)
        out = theirs.generate(ids, attention_mask=mask, eos_token_id=None, **settings)
        assert out[0, len(prompt) :].tolist() == row


@pytest.mark.parametrize("position", ["rope", "learned", "alibi"])
def test_a_cache_changes_no_draw(make_model, position: str) -> None:
    model = make_model(position=position)
    sampler = Sampler(temperature=1.3, top_k=12, repetition_penalty=1.2)
    for seed in range(5):
        settings = {"max_new_tokens": 25, "sampler": sampler}
        fast, slow = (
            generate(model, PROMPTS, generator=seeded(seed), use_cache=cache, **settings)
            for cache in (True, False)
        )
        assert fast == slow


@CACHE
def test_a_row_of_a_batch_goes_on_as_alone(make_model, use_cache: bool) -> None:
    model = make_model()
    settings = {"max_new_tokens": 20, "sampler": GREEDY, "use_cache": use_cache}
    alone = [generate(model, [prompt], **settings)[0] for prompt in PROMPTS]
    assert generate(model, PROMPTS, **settings) == alone
    assert generate(model, PROMPTS[::-1], **settings) == alone[::-1]


def test_with_a_cache_the_model_reads_each_token_once(make_model) -> None:
    model = make_model()
    read = []
    model.register_forward_pre_hook(lambda _, given: read.append(given[0].shape[1]))
    generate(model, PROMPTS, max_new_tokens=5, sampler=GREEDY)
    assert read == [7, 1, 1, 1, 1]


def test_padding_never_reaches_the_model_and_the_context_can_be_filled(make_model) -> None:
    model = make_model()
    ids = reader.prompt_ids(model, PROMPTS, 1)
    assert ids.tolist()[1] == [PAD] * 6 + [6]
    assert [len(row) for row in generate(model, PROMPTS, max_new_tokens=25, sampler=GREEDY)] == [
        25
    ] * 3


@CACHE
def test_a_row_ends_with_its_stop_token_and_the_others_go_on(make_model, use_cache: bool) -> None:
    model = make_model()
    settings = {"max_new_tokens": 20, "sampler": GREEDY, "use_cache": use_cache}
    whole = generate(model, PROMPTS, **settings)
    stop = whole[0][3]
    cut = [row[: row.index(stop) + 1] if stop in row else row for row in whole]
    assert generate(model, PROMPTS, stop={stop}, **settings) == cut
    assert len(cut[0]) <= 4 and cut != whole
    every = generate(model, PROMPTS, stop=range(20), **settings)
    assert every == [row[:1] for row in whole]


def test_each_token_is_told_as_it_comes(make_model) -> None:
    model = make_model()
    told: list[tuple[int, int]] = []
    stop = generate(model, PROMPTS, max_new_tokens=9, sampler=GREEDY)[2][1]
    new = generate(
        model,
        PROMPTS,
        max_new_tokens=9,
        sampler=GREEDY,
        stop=[stop],
        on_token=lambda row, id: told.append((row, id)),
    )
    assert [[id for row, id in told if row == i] for i in range(3)] == new
    assert [row for row, _ in told[:3]] == [0, 1, 2]
    assert len(told) == sum(map(len, new)) < 27


def test_a_seed_repeats_the_text(make_model) -> None:
    model = make_model()
    texts = [
        generate(model, PROMPTS, max_new_tokens=20, sampler=Sampler(), generator=seeded(s))
        for s in (1, 1, 2)
    ]
    assert texts[0] == texts[1] != texts[2]


def test_texts_have_the_distribution_of_the_model(make_model, joint, assert_drawn_from) -> None:
    model = make_model(vocab_size=4)
    probs = joint(model, [1, 2], temperature=3.0)
    new = generate(
        model,
        [[1, 2]] * 20_000,
        max_new_tokens=2,
        sampler=Sampler(temperature=3.0),
        generator=seeded(),
    )
    first, second = torch.tensor(new).T
    assert_drawn_from((4 * first + second).bincount(minlength=16), probs)


@CACHE
@pytest.mark.parametrize("sampler", [GREEDY, Sampler(temperature=2.0, top_p=0.95)], ids=str)
def test_ids_behind_the_tokenizers_are_never_chosen(make_model, sampler, use_cache: bool) -> None:
    model, cut = make_model(), make_model(vocab_size=12)
    weights = model.state_dict()
    heads = {
        name: w[:12] if "embedding" in name or "head" in name else w for name, w in weights.items()
    }
    cut.load_state_dict(heads)
    settings = {"max_new_tokens": 20, "sampler": sampler, "use_cache": use_cache}
    texts = generate(model, PROMPTS, n_ids=12, generator=seeded(), **settings)
    assert texts == generate(cut, PROMPTS, generator=seeded(), **settings)
    assert max(map(max, generate(model, PROMPTS, generator=seeded(), **settings))) >= 12


def test_weights_are_left_without_gradients(make_model) -> None:
    model = make_model()
    generate(model, [[1]], max_new_tokens=3, sampler=Sampler())
    assert all(p.grad is None for p in model.parameters())


# --- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prompts", "n", "message"),
    [
        ([[]], 1, "the prompt is empty: the model needs at least one token"),
        ([[1], []], 1, "prompt 1 is empty"),
        ([], 1, "one list of ids for each row"),
        ([1, 2], 1, "one list of ids for each row"),
        ("to be", 1, "one list of ids for each row"),
        ([[1] * 33], 1, "33 tokens and 1 new .* context of 32; keep its last part$"),
        ([[2], [1] * 30], 3, "prompt 1 of 30 tokens and 3 new .* context of 32; .* at most 2"),
        ([[1, 20]], 1, r"holds the id 20, but the model's are 0 … 19"),
        ([[PAD, 1]], 1, "holds the id -1"),
        ([[1]], 0, "max_new_tokens must be at least 1, got 0"),
        ([[1]], 1.5, "max_new_tokens must be a whole number, got 1.5"),
        (
            torch.tensor([1, 2]),
            1,
            r"one list of ids for each row.*; one prompt alone is \[prompt\]",
        ),
        (torch.tensor(1), 1, "one list of ids for each row"),
        (torch.tensor([[1.0]]), 1, "an id of the prompt must be a whole number, got 1.0"),
        ([[1], [True]], 1, "an id of prompt 1 must be a whole number, got True"),
        ([[[1, 2]]], 1, r"an id of the prompt must be a whole number, got \[1, 2\]"),
    ],
)
@CACHE
def test_prompts_that_cannot_be(make_model, prompts, n, message: str, use_cache: bool) -> None:
    with pytest.raises(ValueError, match=message):
        generate(make_model(), prompts, max_new_tokens=n, sampler=GREEDY, use_cache=use_cache)


def test_numbers_of_ids_that_cannot_be(make_model) -> None:
    settings = {"max_new_tokens": 1, "sampler": GREEDY}
    with pytest.raises(ValueError, match=r"holds the id 12, but the model's are 0 … 11"):
        generate(make_model(), [[12]], n_ids=12, **settings)
    with pytest.raises(ValueError, match="n_ids is 21, but the model's vocabulary is 20"):
        generate(make_model(), [[12]], n_ids=21, **settings)


def test_weights_that_overflow_are_told(make_model) -> None:
    model = make_model()
    model.head.weight.data[3] = torch.nan
    with pytest.raises(ValueError, match="found nan"):
        generate(model, PROMPTS, max_new_tokens=2, sampler=Sampler())
