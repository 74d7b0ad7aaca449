"""The pages of drawings: every published model, its source, and what is marked as new."""

import re

import drawings
import pytest

from llmtutor.model.accounting import parameters
from llmtutor.model.published import PUBLISHED


def test_every_published_model_has_its_source_and_one_before_it() -> None:
    assert set(drawings.SOURCES) == set(PUBLISHED)
    years = [source.year for source in drawings.SOURCES.values()]
    assert years == sorted(years)
    seen: list[str] = []
    for name, source in drawings.SOURCES.items():
        assert source.address.startswith("https://") and source.paper
        assert source.before in seen if seen else source.before == ""
        seen.append(name)


@pytest.mark.parametrize(
    ("name", "marked"),
    [
        ("gpt2-medium", set()),  # the same, larger
        ("llama2-7b", {"mixer", "ffn", "norm", "embedding", "logits"}),
        ("mamba-130m", {"mixer", "ffn", "norm", "embedding"}),  # neither attention nor positions
        ("llama3-8b", {"mixer"}),  # shared KV heads
        ("deepseek-v2", {"mixer", "ffn"}),  # latents, experts
        ("deepseek-v3", {"ffn"}),  # another router
        ("mistral-7b", {"mixer"}),  # and a window
        ("llama3.2-1b", {"mixer", "logits"}),  # stretched RoPE, tied
        ("gemma3-1b", {"mixer", "logits"}),  # QK-norm in place of soft caps
        ("mixtral-8x7b", {"mixer", "ffn"}),  # experts, no window
        ("olmo2-1b", {"mixer", "norm"}),  # QK-norm, norms after the sub-layers
    ],
)
def test_what_is_marked_is_what_is_new(name: str, marked: set[str]) -> None:
    before = PUBLISHED[drawings.SOURCES[name].before]
    assert drawings.changed(PUBLISHED[name], before) == marked
    assert drawings.card(name).count('class="lt-new"') > 0 or not marked


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_card_says_what_the_configuration_says(name: str) -> None:
    card = drawings.card(name)
    facts = dict(re.findall(r"<th scope='row'>(.*?)</th><td>(.*?)</td>", card))
    assert facts["parameters"] == f"{parameters(PUBLISHED[name]).total:,}"
    assert facts["context"] == f"{PUBLISHED[name].max_seq_len:,} tokens"
    assert facts["published"] == str(drawings.SOURCES[name].year)


def test_by_hand() -> None:
    """GPT-2 keeps 12 layers × 2 × 768 numbers of 2 bytes for a token."""
    facts = dict(re.findall(r"<th scope='row'>(.*?)</th><td>(.*?)</td>", drawings.card("gpt2")))
    assert (
        facts["cache for a token"]
        == "36 KiB in bfloat16"
        == f"{12 * 2 * 768 * 2 // 1024} KiB in bfloat16"
    )


def test_every_word_is_drawn_and_explained() -> None:
    words = list(drawings.words())
    assert len(words) >= 12
    page = drawings.vocabulary()
    assert page.count("<svg") == len(words) == page.count("</desc>")
