"""Drawings: sizes by hand, what is drawn against the object, colours that can be read."""

import re
import xml.etree.ElementTree as ET
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch

from llmtutor.layers.attention import AttentionConfig, causal_mask, sliding_window_mask
from llmtutor.layers.ffn import MLPConfig
from llmtutor.model.block import BlockConfig
from llmtutor.model.config import ModelConfig
from llmtutor.model.presets import preset
from llmtutor.model.published import PUBLISHED
from llmtutor.viz.diagrams import language as look
from llmtutor.viz.diagrams import shapes
from llmtutor.viz.diagrams.generation import draw_second_head
from llmtutor.viz.diagrams.model import block_shape, draw_model, part_words
from llmtutor.viz.diagrams.shapes import Drawing, Shape, arrow, box, column, named, row, text
from llmtutor.viz.diagrams.transformer import additions_shape, beside_shape, trace_shape

STYLE = (Path(shapes.__file__).parent / "style.css").read_text(encoding="utf-8")


def words_of(shape: Shape) -> list[str]:
    """Its letters in the order in which they are drawn."""
    return ["".join(t.itertext()) for t in ET.fromstring(f"<g>{shape.body}</g>").iter("text")]


def count(shape: Shape, pattern: str) -> int:
    return len(re.findall(pattern, shape.body))


def test_rows_and_columns_have_the_sizes_of_their_parts() -> None:
    a, b = Shape(30, 10, "<a/>"), Shape(20, 16, "<b/>")
    beside, below = row(a, b, gap=5), column(a, b, gap=5, align="end")
    assert (beside.width, beside.height) == (55, 16)
    assert (
        beside.body
        == '<g transform="translate(0 3)"><a/></g><g transform="translate(35 0)"><b/></g>'
    )
    assert (below.width, below.height) == (30, 31)
    assert below.body == '<a/><g transform="translate(10 15)"><b/></g>'


def test_a_box_is_as_wide_as_its_words_and_the_least_that_is_asked() -> None:
    words = text("residual")
    assert box("residual").width == pytest.approx(words.width + 14)
    assert box("residual", width=200).width == 200
    assert words.width > text("residual", 8).width > 0
    two = box("a\nb")
    assert words_of(two) == ["a", "b"] and two.height > box("a").height


def test_letters_of_the_reader_are_escaped() -> None:
    drawing = Drawing(look.token("<b>&", 3), "<i>", "a & b")
    tree = ET.fromstring(drawing.svg())
    assert "<b>&" in "".join(tree.itertext())
    assert tree.find("title").text == "<i>" and tree.find("desc").text == "a & b"
    assert drawing._repr_mimebundle_()["text/plain"] == "<i>. a & b"


def test_a_drawing_says_what_is_wrong_with_it() -> None:
    with pytest.raises(ValueError, match="'long' is 400 units wide and a phone shows 360"):
        Drawing(Shape(400, 10, ""), "long", "x")
    with pytest.raises(ValueError, match="needs a title and a description"):
        Drawing(Shape(40, 10, ""), "x", " ")
    with pytest.raises(ValueError, match="did you mean 'query'"):
        box("x", "qury")


def test_two_drawings_of_a_page_have_names_of_their_own_and_each_is_always_the_same() -> None:
    a, b = (Drawing(look.token(word), word, word).svg() for word in "ab")
    names = [re.findall(r' id="([^"]+)"', svg) for svg in (a, b)]
    assert len(set(names[0] + names[1])) == 4
    assert a == Drawing(look.token("a"), "a", "a").svg()
    for svg, (title, description) in zip((a, b), names, strict=True):
        assert f'aria-labelledby="{title} {description}"' in svg


def test_numbers_in_cells() -> None:
    assert words_of(look.vector([0.04, -1.26, 2.0])) == ["0.0", "−1.3", "2.0"]
    assert words_of(look.vector(torch.tensor([1.0, -0.001]), digits=2)) == ["1.00", "0.00"]
    assert look.vector(3).width == 3 * look.CELL == look.vector(3, upright=True).height


@pytest.mark.parametrize("mask", [causal_mask(4), sliding_window_mask(5, 2), causal_mask(2, 4)])
def test_a_mask_crosses_out_what_is_not_allowed_where_it_is(mask: torch.Tensor) -> None:
    drawn = look.mask(mask)
    cells = re.findall(r'class="lt-(query|off)" width="22" height="22"', drawn.body)
    assert [cell == "query" for cell in cells] == mask.flatten().tolist()
    assert count(drawn, "lt-hatch") == int((~mask).sum())


def test_a_matrix_shows_names_and_hides_what_is_masked() -> None:
    scores = np.array([[1.0, 2.0], [3.0, 4.0]])
    drawn = look.matrix(scores, rows=["a", "b"], columns=["c", "d"], shown=causal_mask(2))
    assert sorted(words_of(drawn)) == ["1.0", "3.0", "4.0", "a", "b", "c", "d"]
    marked = look.matrix(scores, marked=scores > 3)
    assert count(marked, 'class="lt-new"') == 1 and count(marked, 'class="lt-weight"') == 4


@pytest.mark.parametrize(("n_heads", "n_kv_heads"), [(8, 8), (8, 2), (6, 3), (4, 1)])
def test_each_query_head_leads_to_the_keys_of_its_group(n_heads: int, n_kv_heads: int) -> None:
    drawn = look.head_sharing(n_heads, n_kv_heads)
    ends = re.findall(r'polyline class="[^"]+" points="([^"]+)"', drawn.body)
    targets = [end.split(" ")[1] for end in ends]
    assert len(targets) == n_heads and len(set(targets)) == n_kv_heads
    groups = [i // (n_heads // n_kv_heads) for i in range(n_heads)]  # Ainslie et al. 2023
    assert [sorted(set(targets), key=targets.index).index(t) for t in targets] == groups


def test_a_ring_has_an_arrow_from_each_rank_to_the_next() -> None:
    for n in (2, 4, 7):
        drawn = look.ring(n)
        assert words_of(drawn)[:n] == [f"rank {i}" for i in range(n)]
        assert count(drawn, "lt-head") == n
        assert drawn.width <= shapes.WIDEST
    wide = look.ring(4, "a label of some length")
    letters = text("a label of some length", shapes.SMALL).width
    assert wide.width - 2 * look.rank(3).width >= letters + 10  # it lies between two ranks


def test_a_cache_shows_how_much_of_it_is_full() -> None:
    drawn = look.cache(5, 2, ("to", "be"))
    assert count(drawn, 'rect class="lt-cache"') == 2
    assert words_of(drawn) == ["cache", "to", "be"]


def test_other_words_of_the_language() -> None:
    assert words_of(look.head("h 1")) == ["h 1", "q", "k", "v"]
    assert words_of(look.tokens(["a", " b"])) == ["a", "␣b"]
    assert count(look.expert("e"), "<polygon") == 1 and count(look.state("h"), "<circle") == 1
    assert look.stream(50).height == 50 == look.stream(50, "right").width
    assert words_of(arrow(label="adds")) == ["adds"] == words_of(named(look.stream(9), "adds"))
    for to in ("down", "up"):
        shape = arrow(20, to=to, label="go")
        assert shape.width > 2 * text("go", shapes.SMALL).width  # the arrow stays in the middle


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_model_is_drawn_as_its_configuration_says(name: str) -> None:
    config = PUBLISHED[name]
    drawing = draw_model(config, name)
    drawn = " ".join(words_of(drawing.shape))
    assert f"{config.vocab_size:,} tokens × {config.d_model:,}" in drawn
    blocks = dict.fromkeys(config.blocks)
    times = [int(n) for n in re.findall(r"(\d+) × block", drawn)]
    assert sorted(times) == sorted(config.blocks.count(block) for block in blocks)
    assert sum(times) == config.n_layers and f"{config.n_layers} blocks of" in drawing.description
    for block in blocks:
        mixer = block.mixer
        if not isinstance(mixer, AttentionConfig):
            assert part_words(mixer) in drawn
            two = block.n_sub_layers == 2
            assert two == (block.ffn.kind != "no-ffn") == (part_words(block.ffn) in drawn)
            continue
        expert = getattr(block.ffn, "expert", block.ffn)
        assert f"{mixer.n_heads:,} heads" in drawn and f"{expert.d_ff:,} hidden units" in drawn
        if expert is not block.ffn:
            assert f"{block.ffn.n_experts} of them" in drawn
            assert f"{block.ffn.router.top_k} for each token" in drawn
        assert ("KV heads" in drawn) == any(
            getattr(b.mixer, "n_kv_heads", None) is not None for b in blocks
        )
        if mixer.window is not None:
            assert f"window {mixer.window:,}" in drawn
    assert ("the embedding again" in drawn) == config.tie_weights
    each = {"pre": 1, "post": 1, "res-post": 1, "sandwich": 2}
    norms = sum(each[b.norm_placement] * (1 + (b.ffn.kind != "no-ffn")) for b in blocks)
    norms += config.norm is not None
    assert count(drawing.shape, 'rect class="lt-norm"') == norms
    assert drawing.shape.width <= shapes.WIDEST


SMALL_MODEL = ModelConfig.uniform(65, 32, 2, 16, 4, 44)
CHANGES = {
    "n_layers": 3,
    "d_model": 32,
    "vocab_size": 66,
    "n_heads": 2,
    "n_kv_heads": 2,
    "head_dim": 6,
    "d_ff": 45,
    "ffn": "gelu",
    "activation": "gelu",
    "norm": "layernorm",
    "norm_placement": "post",
    "position": "learned",
    "rope_base": 500.0,
    "window": 8,
    "bias": True,
    "qk_norm": "rmsnorm",
    "scale": 0.5,
    "softcap": 30.0,
    "sinks": True,
    "gate": True,
    "tie_weights": False,
    "embedding_scale": 4.0,
    "logit_softcap": 20.0,
}


@pytest.mark.parametrize("field", CHANGES)
def test_a_change_of_the_configuration_changes_the_drawing(field: str) -> None:
    changed = SMALL_MODEL.replace(**{field: CHANGES[field]})
    assert changed != SMALL_MODEL
    assert draw_model(changed, "m").shape != draw_model(SMALL_MODEL, "m").shape


def heights(shape: Shape, role: str) -> list[float]:
    """Of the upper edges of the boxes of a role, in a shape without deeper groups than two."""
    found = []

    def walk(element: ET.Element, y: float) -> None:
        if moved := re.match(r"translate\(\S+ (\S+)\)", element.get("transform", "")):
            y += float(moved[1])
        if element.tag == "rect" and element.get("class") == f"lt-{role}":
            found.append(y)
        for child in element:
            walk(child, y)

    walk(ET.fromstring(f"<g>{shape.body}</g>"), 0)
    return sorted(found)


@pytest.mark.parametrize(
    ("placement", "order"),
    [("pre", "nmnf"), ("res-post", "mnfn"), ("sandwich", "nmnnfn"), ("post", "mnfn")],
)
def test_norms_stand_where_the_placement_says(placement: str, order: str) -> None:
    block = SMALL_MODEL.replace(norm_placement=placement).blocks[0]
    shape = block_shape(block)
    roles = {"n": "norm", "m": "query", "f": "weight"}
    found = sorted((y, letter) for letter, role in roles.items() for y in heights(shape, role))
    assert "".join(letter for _, letter in found) == order
    # "post" normalises the stream itself: its norms begin where the stream runs.
    left = count(shape, r'translate\(0 [\d.]+\)"><rect class="lt-norm"')
    inside = count(shape, r"translate\(52 18\)")
    assert inside == 2 and (left == 2 or placement != "post")


def test_what_is_marked_stands_out() -> None:
    block = BlockConfig(preset("gpt2").blocks[0].mixer, MLPConfig(8))
    for marked, n in (((), 0), (("mixer",), 1), (("norm",), 2), (("mixer", "ffn", "norm"), 4)):
        assert count(block_shape(block, marked), 'rect class="lt-new"') == n


def test_parts_in_words() -> None:
    (gemma, _), (olmo, _) = (PUBLISHED[n].blocks[:2] for n in ("gemma2-2b", "olmo2-1b"))
    said = "Attention: 8 heads, 4 KV heads, 256 wide each, RoPE (base 10,000), window 4,096"
    assert part_words(gemma.mixer) == f"{said}, scores within ±50"
    assert part_words(gemma.ffn) == "GEGLU: 9,216 hidden units"
    assert part_words(gemma.norm) == "RMSNorm: gain 1 + weight"
    assert "QK-norm, over all heads at once" in part_words(olmo.mixer)
    assert part_words(MLPConfig(8, activation="relu")) == "MLP: 8 hidden units, ReLU"


def luminance(color: str) -> float:
    digits = "".join(2 * c for c in color[1:]) if len(color) == 4 else color[1:]
    channels = np.array([int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)])
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def contrast(a: str, b: str) -> float:
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


def test_letters_and_edges_can_be_seen_on_light_and_dark_pages() -> None:
    light, dark = re.findall(r"\{([^}]*--ink:[^}]*)\}", STYLE)
    for theme, page in ((light, "#ffffff"), (dark, "#121212")):
        colors = dict(re.findall(r"--([\w-]+): (#\w+)", theme))
        for role in shapes.ROLES:
            assert contrast(colors["ink"], colors[role]) >= 4.5, role
            edge = colors.get(f"{role}-edge", colors["edge"])
            assert contrast(edge, page) >= 3, role
        assert contrast(colors["ink"], page) >= 4.5


def test_every_role_has_its_colours() -> None:
    for role, place in product(shapes.ROLES, ("fill", "stroke")):
        rule = re.search(rf"\.lt-drawing \.lt-{role} \{{([^}}]*)\}}", STYLE)
        assert rule and f"{place}: var(" in rule[1]


def test_additions_show_what_is_read_and_every_sum() -> None:
    x, heard, thought = torch.tensor([[3.0, 4.0], [1.0, -2.0], [0.0, 2.0]])
    shape = additions_shape(
        x, [("attention", "query", x / 2, heard), ("MLP", "weight", x / 4, thought)]
    )
    parts = ["norm", "1.50", "2.00", "attention", "1.0", "−2.0"]
    parts += ["4.0", "2.0", "norm", "0.75", "1.00", "MLP", "0.0", "2.0", "4.0", "4.0"]
    assert words_of(shape) == ["3.0", "4.0", *parts]
    assert shape.width <= shapes.WIDEST and count(shape, 'circle class="lt-stream"') == 2


def test_a_trace_has_a_line_for_each_tensor() -> None:
    shape = trace_shape([("ids", "token", (2, 10)), ("queries", "query", (2, 4, 10, 12))])
    assert words_of(shape) == ["ids", "(2, 10)", "queries", "(2, 4, 10, 12)"]


def test_beside_each_other_only_what_differs_stands_out() -> None:
    gpt2 = preset("gpt2")
    same = beside_shape(("a", gpt2), ("b", gpt2.replace(n_layers=2)))
    assert count(same, 'rect class="lt-new"') == 0
    # Both norms of the block and the last one are of the other kind.
    other = beside_shape(("GPT-2", gpt2), ("other", gpt2.replace(norm="rmsnorm")))
    assert count(other, 'rect class="lt-new"') == 3 and other.width <= shapes.WIDEST


def test_a_second_head_has_the_sizes_of_its_model_and_the_tokens_of_its_text() -> None:
    config = preset("llama-nano", n_layers=3, d_model=64, n_heads=4)
    drawing = draw_second_head(config, ("My", " lord", ","))
    shown = re.findall(r"<text[^>]*>(.*?)</text>", drawing.svg())
    assert [shown.count(word) for word in ("My", "␣lord", ",")] == [1, 2, 1]
    words_in_boxes = ("3 blocks", "one norm each", "one more block", "projection to 64")
    for words in (*words_in_boxes, "h, 64 numbers", "h beside e, 128 numbers"):
        assert words in shown
    for fact in ("'My'", "' lord'", "','", "3 blocks", "64 numbers", "128 numbers"):
        assert fact in drawing.description
