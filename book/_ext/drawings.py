"""Sphinx extension of this book: pages of drawings, made from the objects that they show.

```{gallery}
```

draws every published model that ``preset`` knows, from its configuration, with what it costs; the
reader picks two to see them side by side.

```{vocabulary}
```

shows every word of the book's visual language with what it stands for.

```{drawing} Title
row(vector([1, 2]), matrix((2, 2)))
The description, for those who do not see it.
```

draws an expression in that language.
"""

import json
from collections.abc import Iterator
from html import escape
from pathlib import Path

import torch
from docutils import nodes
from gallery_sources import SOURCES
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from llmtutor.layers.attention import causal_mask, sliding_window_mask
from llmtutor.layers.part import Part
from llmtutor.model.block import ROLES, BlockConfig
from llmtutor.model.config import ModelConfig
from llmtutor.model.published import PUBLISHED
from llmtutor.model.summary import BYTES, LARGE, figures, short
from llmtutor.viz.diagrams import language as look
from llmtutor.viz.diagrams.model import draw_model, part_words
from llmtutor.viz.diagrams.shapes import Drawing, Shape, arrow, box, column, row

SCRIPT = Path(__file__).with_name("gallery.js")
SIZES = (
    "n_heads",
    "kv_rank",
    "nope_dim",
    "rope_dim",
    "v_dim",
    "head_dim",
    "d_ff",
    "d_state",
    "dt_rank",
    "eps",
    "base",
    "scale",
)
"""Fields that say how large something is, not what it is."""
OPTIONAL = ("n_kv_heads", "q_rank", "window", "factor", "original_max_seq_len", "softcap")
"""Sizes of something that may be absent."""


def traits(part: Part) -> set[str]:
    """What a part is, in words, whatever its size.

    >>> from llmtutor.layers.ffn import GatedMLPConfig
    >>> traits(GatedMLPConfig(d_ff=44)) == traits(GatedMLPConfig(d_ff=99))
    True
    """
    found = {f"kind {part.kind}"}
    for name, value in part.values().items():
        if isinstance(value, Part):
            found |= {f"{name}: {trait}" for trait in traits(value)}
        elif name in (
            "n_kv_heads",
            "q_rank",
            "window",
            "factor",
            "original_max_seq_len",
            "softcap",
        ):
            found.add(f"{name} {'given' if value is not None else 'not given'}")
        elif name not in SIZES:
            found.add(f"{name} {value}")
    return found


def changed(config: ModelConfig, before: ModelConfig) -> set[str]:
    """The roles in which a model has other parts, not only other sizes, than the one before it."""
    found = set()
    for role in ROLES:
        kinds = [
            {frozenset(traits(getattr(block, role))) for block in some.blocks}
            for some in (config, before)
        ]
        if kinds[0] != kinds[1]:
            found.add(role)
    if _placements(config) != _placements(before):
        found.add("norm")
    if (config.position is None) != (before.position is None):
        found.add("embedding")
    if (config.embedding_scale == 1) != (before.embedding_scale == 1):
        found.add("embedding")
    ends = [(c.tie_weights, c.logit_softcap is None) for c in (config, before)]
    if ends[0] != ends[1]:
        found.add("logits")
    return found


def _placements(config: ModelConfig) -> set[str]:
    return {block.norm_placement for block in config.blocks}


def card(name: str) -> str:
    """One model: its drawing, what it costs, where it comes from."""
    config, source = PUBLISHED[name], SOURCES[name]
    marked = changed(config, PUBLISHED[source.before]) if source.before else set()
    known = figures(config)
    counts, flops, kept = (known[n] for n in ("parameters", "flops_per_token", "cache_bytes"))
    facts = [
        ("parameters", f"{counts['total']:,}"),
        ("active for a token", f"{counts['active']:,}"),
        ("cache for a token", short(kept["first"], BYTES, 4) + " in bfloat16"),
        ("cache of a full context", short(kept["context"], BYTES, 4)),
        ("FLOPs for the first token", short(flops["first"], LARGE, 3)),
        ("FLOPs for the last token", short(flops["last"], LARGE, 3)),
        ("context", f"{config.max_seq_len:,} tokens"),
        ("published", str(source.year)),
    ]
    rows = "".join(f"<tr><th scope='row'>{key}</th><td>{value}</td></tr>" for key, value in facts)
    others = "as in " + source.before if source.before else ""
    note = ""
    if source.before:
        what = _said(config, marked)
        note = f"Yellow: other than in {source.before}. {what}" if marked else f"Parts {others}."
    return (
        f'<section class="lt-model" data-model="{name}" aria-label="{name}"><h3>{name}</h3>'
        f"<p>{escape(note)}</p>{draw_model(config, name, marked).svg()}"
        f'<table class="lt-facts"><tbody>{rows}<tr><th scope="row">source</th>'
        f'<td><a href="{source.address}">{escape(source.paper)}</a></td></tr></tbody></table>'
        "</section>"
    )


def _said(config: ModelConfig, marked: set[str]) -> str:
    """The changed parts in words."""
    block: BlockConfig = config.blocks[0]
    said = [part_words(getattr(block, role)) for role in ROLES if role in marked]
    return "; ".join(said) + "." if said else ""


def gallery() -> str:
    """All models, oldest first, and two lists to pick two of them."""
    options = "".join(f"<option>{name}</option>" for name in SOURCES)
    picks = "".join(
        f'<label>{side} <select data-side="{i}">{options}</select></label>'
        for i, side in enumerate(("left", "right"))
    )
    cards = "".join(card(name) for name in SOURCES)
    first = json.dumps(["gpt2", "llama3-8b"])
    return (
        f"<div class='lt-gallery' data-first='{first}'><form hidden>{picks}"
        '<button type="button">show all</button></form>'
        f'<div class="lt-models">{cards}</div></div>'
        f"<script>{SCRIPT.read_text(encoding='utf-8')}</script>"
    )


def words() -> Iterator[tuple[str, str, Shape]]:
    """The visual language: the name of each word, what it stands for, and an example."""
    yield (
        "Token",
        "A piece of text with its id below it; ␣ is a space.",
        row(*(look.token(t, i) for t, i in (("To", 2514), (" be", 307), (" or", 393)))),
    )
    yield (
        "Vector",
        "A strip of cells, with numbers where they matter. Vectors of the residual stream are "
        "yellow, queries blue, keys orange, values green.",
        column(
            look.vector([0.3, -1.2, 0.8, 0.1]),
            row(look.vector(3, "query"), look.vector(3, "key"), look.vector(3, "value")),
        ),
    )
    yield (
        "Matrix",
        "A grid in a frame. One of learned weights is pink.",
        row(look.matrix((3, 4)), look.matrix(torch.tensor([[0.5, -0.1], [1.0, 2.0]]))),
    )
    yield (
        "Mask",
        "A row for each query, a column for each key. What is crossed out cannot be seen. Left: "
        "causal. Right: a window of 2.",
        row(look.mask(causal_mask(4)), look.mask(sliding_window_mask(4, 2)), gap=20),
    )
    yield (
        "Residual stream",
        "A thick line through the whole model. Parts read it and add to it.",
        look.stream(120, "right"),
    )
    yield "Head", "A head of attention has queries, keys and values.", look.head("head 1")
    yield (
        "Shared heads",
        "Lines lead from each query head to the keys and values that it looks at.",
        look.head_sharing(6, 2),
    )
    yield (
        "Cache",
        "A dashed drawer of slots; the blue ones hold the keys and values of a token.",
        look.cache(6, 3, ("To", "be", "or")),
    )
    yield (
        "Norm, part",
        "Norms are violet. What is new in a drawing, or other than before, is bright yellow.",
        row(box("RMSNorm", "norm"), box("SwiGLU", "weight"), box("new", "new")),
    )
    yield "Rank", "A process of a job has a double frame.", look.ring(4, "ring")
    yield "Expert", "One of several feed-forward parts, of which a router chooses.", look.expert()
    yield (
        "State",
        "What a recurrent layer carries from token to token.",
        row(look.state("h₀"), arrow(), look.state("h₁"), arrow(), look.state("h₂")),
    )


def vocabulary() -> str:
    """Every word with its example."""
    parts = []
    for name, meaning, shape in words():
        drawing = Drawing(shape, name, meaning).svg()
        parts.append(f"<h3>{escape(name)}</h3><p>{escape(meaning)}</p>{drawing}")
    return "".join(parts)


def drawn(title: str, expression: str, description: str) -> str:
    """The drawing that an expression in the words of ``diagrams.language`` makes."""
    words = {name: getattr(look, name) for name in dir(look) if not name.startswith("_")}
    shape = eval(expression, {**words, "arrow": arrow, "torch": torch})  # our own pages
    return Drawing(shape, title, description).svg()


class Drawn(SphinxDirective):
    """The directive ``drawing``: its argument is the title, its last line the description."""

    required_arguments = 1
    final_argument_whitespace = True
    has_content = True

    def run(self) -> list[nodes.Node]:
        """The drawing as HTML."""
        expression, description = "\n".join(self.content[:-1]), self.content[-1]
        return [nodes.raw("", drawn(self.arguments[0], expression, description), format="html")]


class Gallery(SphinxDirective):
    """The directive ``gallery``."""

    def run(self) -> list[nodes.Node]:
        """The models as HTML."""
        return [nodes.raw("", gallery(), format="html")]


class Vocabulary(SphinxDirective):
    """The directive ``vocabulary``."""

    def run(self) -> list[nodes.Node]:
        """The words as HTML."""
        return [nodes.raw("", vocabulary(), format="html")]


def setup(app: Sphinx) -> dict[str, object]:
    """Register the directives."""
    app.add_directive("drawing", Drawn)
    app.add_directive("gallery", Gallery)
    app.add_directive("vocabulary", Vocabulary)
    return {"version": "1", "parallel_read_safe": True}
