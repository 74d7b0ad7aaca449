"""Chapter 23, export: the recorded example of each widget as HTML."""

from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

from llmtutor.experiments.kept import load_kept
from llmtutor.web.examples import recorded

CUT = "To be, or not to be: that is the question."


def recorded_html(name: str, options: Mapping[str, Any]) -> str:
    """The example of a widget that begins with ``options``."""
    return EXAMPLES[name](options)


def _write(_: Mapping[str, Any]) -> str:
    found = recorded()["write"]
    return (
        f"<p>The model goes on from <strong>{escape(found['prompt'])}</strong>, always with the "
        f'likeliest token:</p>\n<p class="lt-tokens">{escape(found["text"].strip())}</p>'
    )


def _cut(_: Mapping[str, Any]) -> str:
    tokenizer = load_kept()[1]
    ids = tokenizer.encode(CUT)
    names = [tokenizer.token_bytes(id).decode("utf-8", "replace") for id in ids]
    return (
        f"<p>{len(ids)} tokens of the book's own vocabulary of {tokenizer.vocab_size:,}:</p>\n"
        f"{chips(zip(names, ids, strict=True))}"
    )


def _surprise(_: Mapping[str, Any]) -> str:
    found = recorded()["surprise"]
    bits = [None, *found["bits"]]
    words = ["", *(f"{one:.1f}" for one in found["bits"])]
    total, size = sum(found["bits"]), sum(len(t.encode()) for t in found["tokens"][1:])
    heats = [0.0 if one is None else min(one / 12, 1) for one in bits]
    row = chips(zip(found["tokens"], words, strict=True), heats)
    return (
        f"<p>Bits of surprise at each token: {total:.1f} bits for {size} bytes, "
        f"{total / size:.2f} bits per byte.</p>\n{row}"
    )


def _look(_: Mapping[str, Any]) -> str:
    found = recorded()["look"]
    words = [f"{100 * one:.0f} %" for one in found["weights"]]
    place = f"layer {found['layer'] + 1}, head {found['head'] + 1}"
    return (
        f"<p>Where the last token looks in {place}:</p>\n"
        f"{chips(zip(found['tokens'], words, strict=True), found['weights'])}"
    )


def _inside(_: Mapping[str, Any]) -> str:
    found = recorded()["inside"]
    rows = "".join(
        f'<tr><th scope="row">block {i}</th>'
        + "".join(f"<td><code>{escape(shown(text))}</code> {100 * p:.1f} %</td>" for text, p in row)
        + "</tr>"
        for i, row in enumerate(found["rows"], 1)
    )
    head = "".join(
        f'<th scope="col">{name}</th>' for name in ("after", "first guess", "second", "third")
    )
    return (
        f'<table class="lt-table"><caption>What comes behind “{escape(found["text"])}”?</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    )


EXAMPLES = {"write": _write, "cut": _cut, "surprise": _surprise, "look": _look, "inside": _inside}


def chips(tokens: Iterable[tuple[str, Any]], heats: Iterable[float] | None = None) -> str:
    """Tokens in a row, each with a small word; ``heats`` from 0 to 1 colour them."""
    parts = []
    given = list(tokens)
    for (text, word), heat in zip(given, heats or [0.0] * len(given), strict=True):
        small = f"<small> {escape(str(word))}</small>" if word != "" else ""
        parts.append(
            f'<span class="lt-token" style="--heat:{heat:.3f}">{escape(shown(text))}{small}</span>'
        )
    return f'<p class="lt-tokens">{"".join(parts)}</p>'


def shown(text: str) -> str:
    """White space that can be seen, as in the widgets.

    >>> shown(" be"), shown("\\n")
    ('·be', '↵')
    """
    text = text.replace("\n", "↵").replace("\t", "→")
    middle = text.removeprefix(" ").removesuffix(" ") if text != " " else ""
    return "·" * text.startswith(" ") + middle + "·" * (text.endswith(" ") and text != " ")
