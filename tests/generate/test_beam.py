"""Beam search against transformers, against all texts there are, and by hand."""

from itertools import product

import pytest
import torch
from transformers import AutoModelForCausalLM

from llmtutor.generate.beam import beam_search
from llmtutor.generate.generate import generate
from llmtutor.generate.sampling import Sampler
from llmtutor.interop.hf import save_hf
from llmtutor.model.config import ModelConfig
from llmtutor.model.presets import build
from llmtutor.model.transformer import Transformer

PROMPT = [3, 1, 2]


@pytest.mark.parametrize("length_penalty", [0.0, 1.0, 2.5, -1.0])
@pytest.mark.parametrize("stop", [[], [7], [7, 4, 12, 0, 9, 15, 3]], ids=str)
def test_transformers_finds_the_same(make_model, tmp_path, length_penalty, stop) -> None:
    model = make_model()
    with torch.no_grad():
        model.head.weight.mul_(0.3)  # beams that differ
    save_hf(model, tmp_path)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path)
    ids = torch.tensor([PROMPT])
    for n_beams in (2, 4):
        found = theirs.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            num_beams=n_beams,
            num_return_sequences=n_beams,
            do_sample=False,
            early_stopping="never",
            length_penalty=length_penalty,
            max_new_tokens=9,
            eos_token_id=stop or None,
            pad_token_id=19,
            output_scores=True,
            return_dict_in_generate=True,
        )
        settings = {"n_beams": n_beams, "length_penalty": length_penalty, "stop": stop}
        ours = beam_search(model, PROMPT, max_new_tokens=9, **settings)
        assert len(ours) == n_beams
        for beam, row, score in zip(ours, found.sequences, found.sequences_scores, strict=True):
            assert beam.ids == row[len(PROMPT) :].tolist()[: len(beam.ids)]
            assert beam.score == pytest.approx(float(score), rel=1e-4)
        if len(stop) > 1 and length_penalty == 0:
            assert min(len(beam.ids) for beam in ours) < 9


def all_texts(model: Transformer, length: int, stop: int) -> dict[tuple[int, ...], float]:
    """Every finished text and its log-probability."""
    found = {}
    for text in product(range(model.config.vocab_size), repeat=length):
        new = text[: text.index(stop) + 1] if stop in text else text
        ids = torch.tensor([[*PROMPT, *new]])
        logs = model(ids)[0].double().log_softmax(-1)
        places = range(len(PROMPT) - 1, len(PROMPT) + len(new) - 1)
        found[new] = float(sum(logs[i, id] for i, id in zip(places, new, strict=True)))
    return found


@pytest.mark.parametrize("length_penalty", [0.0, 1.0, 3.0])
def test_with_room_for_all_it_is_a_search_through_all_texts(make_model, length_penalty) -> None:
    model = make_model(vocab_size=4)
    with torch.inference_mode():
        every = all_texts(model, 4, stop=2)
    ranked = sorted(every.items(), key=lambda item: -item[1] / len(item[0]) ** length_penalty)
    settings = {"max_new_tokens": 4, "length_penalty": length_penalty, "stop": {2}}
    wide = beam_search(model, PROMPT, n_beams=len(every), **settings)
    assert [tuple(beam.ids) for beam in wide] == [text for text, _ in ranked]
    assert [beam.log_prob for beam in wide] == pytest.approx([log for _, log in ranked], rel=1e-4)


def chain(*rows: list[float]) -> Transformer:
    """A model of four tokens whose next one depends on the last one alone: row i after token i."""
    model = build(ModelConfig.uniform(4, 16, 1, 4, 1, 4, tie_weights=False)).eval()
    with torch.no_grad():
        for last in (model.blocks[0].mixer.output, model.blocks[0].ffn.down):
            last.weight.zero_()
        model.embedding.weight.copy_(torch.eye(4))
        model.head.weight.copy_(torch.tensor(rows).T.log() / 2)  # the last norm makes 2 of the 1
    return model


def test_by_hand_the_likeliest_first_token_leads_into_a_poorer_text() -> None:
    #               0    1    2    3
    model = chain(
        [0.05, 0.50, 0.40, 0.05],
        [0.25, 0.25, 0.25, 0.25],
        [0.05, 0.03, 0.02, 0.90],
        [0.25, 0.25, 0.25, 0.25],
    )
    (greedy,) = generate(model, [[0]], max_new_tokens=2, sampler=Sampler(greedy=True))
    assert greedy[0] == 1
    (one,) = beam_search(model, [0], max_new_tokens=2, n_beams=1)
    assert one.ids == greedy
    best = beam_search(model, [0], max_new_tokens=2, n_beams=2)[0]
    assert best.ids == [2, 3]
    assert best.log_prob == pytest.approx(torch.tensor(0.4 * 0.9).log().item(), abs=1e-5)
    assert best.score == pytest.approx(best.log_prob / 2)
    # Token 1 ends a text. By its probability it wins; by the mean of a token it does not.
    settings = {"max_new_tokens": 2, "n_beams": 2, "stop": {1}}
    assert beam_search(model, [0], **settings, length_penalty=0)[0].ids == [1]
    assert beam_search(model, [0], **settings, length_penalty=1)[0].ids == [2, 3]


def test_only_the_best_candidates_may_end_a_text() -> None:
    """Of two beams the third candidate is read on for a text that lives, as transformers does."""
    model = chain([0.1, 0.4, 0.2, 0.3], *[[0.25] * 4] * 3)
    settings = {"max_new_tokens": 2, "n_beams": 2, "length_penalty": -1}
    found = beam_search(model, [0], stop={1, 2}, **settings)
    assert [len(beam.ids) for beam in found] == [1, 2]  # by its score [2] would be the second
    assert found[0].ids == [1] and found[1].ids[0] == 3


def test_padded_ids_are_never_taken_and_bad_input_is_refused(make_model) -> None:
    model = make_model()
    settings = {"max_new_tokens": 8, "n_beams": 3}
    assert max(max(beam.ids) for beam in beam_search(model, PROMPT, **settings, n_ids=6)) < 6
    with pytest.raises(ValueError, match="n_beams must be at least 1, got 0"):
        beam_search(model, PROMPT, max_new_tokens=8, n_beams=0)
    with pytest.raises(ValueError, match="length_penalty must be a finite number, got 'long'"):
        beam_search(model, PROMPT, **settings, length_penalty="long")
    with pytest.raises(ValueError, match="the prompt is empty"):
        beam_search(model, [], **settings)
    with torch.no_grad():
        model.head.weight.fill_(torch.nan)
    with pytest.raises(ValueError, match="found nan"):
        beam_search(model, PROMPT, **settings)
