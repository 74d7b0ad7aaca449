"""Export to the page: what the engine cannot run is refused by its name, and nothing is written."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from llmtutor.experiments.kept import load_kept
from llmtutor.layers.norms import LayerNormConfig, RMSNormConfig
from llmtutor.layers.positions import YarnScaling
from llmtutor.model.config import ModelConfig
from llmtutor.model.transformer import Transformer
from llmtutor.tokenizer import CharTokenizer
from llmtutor.web.boxes import INVITATIONS, box
from llmtutor.web.decoder import sizes
from llmtutor.web.examples import compute, recorded
from llmtutor.web.export import model_script, save_web
from llmtutor.web.page_files import page_files
from llmtutor.web.recorded import EXAMPLES, recorded_html

CONFIG = ModelConfig.uniform(65, 32, n_layers=2, d_model=16, n_heads=4, d_ff=64)
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "norm": ({"norm": "layernorm"}, r"blocks\[0\].norm is 'layernorm', expected 'rmsnorm'"),
    "position": ({"position": "alibi"}, r"blocks\[0\].mixer.position is 'alibi', expected 'rope'"),
    "learned": ({"position": "learned"}, r"position is LearnedConfig|position is 'none'|^position"),
    "window": ({"window": 8}, r"blocks\[0\].mixer.window is 8, expected None"),
    "bias": ({"bias": True}, r"bias is True, expected False"),
    "gate": ({"gate": True}, r"blocks\[0\].mixer.gate is True, expected False"),
    "softcap": ({"softcap": 30.0}, r"blocks\[0\].mixer.softcap is 30.0, expected None"),
    "ffn": ({"ffn": "mlp"}, r"blocks\[0\].ffn is 'mlp', expected 'gated-mlp'"),
    "activation": (
        {"activation": "gelu"},
        r"blocks\[0\].ffn.activation is 'gelu', expected 'silu'",
    ),
    "placement": ({"norm_placement": "sandwich"}, r"blocks\[0\].norm_placement is 'sandwich'"),
    "scaling": ({"rope_scaling": YarnScaling(2.0, 32)}, r"blocks\[0\].mixer.position.scaling is"),
    "fraction": ({"rope_fraction": 0.5}, r"blocks\[0\].mixer.position.fraction is 0.5"),
    "softcap of logits": ({"logit_softcap": 5.0}, r"^logit_softcap is 5.0, expected None"),
    "scale": ({"embedding_scale": 2.0}, r"^embedding_scale is 2.0, expected 1.0"),
    "another norm of heads": ({"qk_norm": RMSNormConfig(1e-3)}, "norms differ in the model"),
    "layer norm of heads": ({"qk_norm": LayerNormConfig()}, "norms differ in the model"),
    "mixer": ({"mixer": "mamba"}, r"blocks\[0\].mixer is 'mamba', expected 'attention'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_another_model_is_refused_by_name(name: str) -> None:
    changes, words = REFUSED[name]
    with pytest.raises(ValueError, match=words) as caught:
        sizes(CONFIG.replace(**changes))
    assert "the engine of the page runs RMSNorm, RoPE" in str(caught.value)


def test_blocks_that_differ_are_refused() -> None:
    blocks = [CONFIG.blocks[0], CONFIG.replace(d_ff=8).blocks[0]]
    with pytest.raises(ValueError, match=r"blocks\[1\] is not like blocks\[0\]"):
        sizes(CONFIG.replace(blocks=blocks))


def test_a_weight_that_is_no_number_is_refused() -> None:
    model, tokenizer = Transformer(CONFIG), CharTokenizer("ab")
    with torch.no_grad():
        model.blocks[1].get_submodule("ffn.up").weight[0, 0] = torch.nan
    with pytest.raises(ValueError, match=r"blocks\.1\.ffn\.up\.weight is not finite"):
        model_script(model, tokenizer)


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="66 tokens, the model only 65"):
        save_web(Transformer(CONFIG), CharTokenizer("".join(map(chr, range(66)))), tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_rows_that_belong_to_no_token_are_not_sent() -> None:
    script = model_script(Transformer(CONFIG), CharTokenizer("abc"))
    values = json.loads(script[script.index("] = {") + 4 : -2])
    assert values["sizes"]["vocab_size"] == 3 and values["parts"]["shapes"][0] == [3, 16]


def test_int8_is_a_quarter_of_the_way_to_the_page() -> None:
    model, tokenizer = load_kept()
    weights = sum(p.numel() for p in model.parameters())
    assert len(model_script(model, tokenizer)) < 1.3 * weights


def test_the_page_names_files_that_are_there(tmp_path: Path) -> None:
    save_web(Transformer(CONFIG), CharTokenizer("abc"), tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert {"model.js", "engine.js", "kit.js", "widget-write.js"} <= names
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    found = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert (
        len(found) == 2 and set(found) <= names and "&quot;model&quot;: &quot;model&quot;" in page
    )


def test_the_examples_are_what_the_model_says() -> None:
    kept, found = recorded(), compute(*load_kept())
    assert kept["write"] == found["write"]
    for name, numbers in (("surprise", "bits"), ("look", "weights")):
        assert kept[name]["tokens"] == found[name]["tokens"]
        assert kept[name][numbers] == pytest.approx(found[name][numbers], abs=0.011)
    for kept_row, row in zip(kept["inside"]["rows"], found["inside"]["rows"], strict=True):
        assert [text for text, _ in kept_row] == [text for text, _ in row]
        assert [p for _, p in kept_row] == pytest.approx([p for _, p in row], abs=0.0011)


def test_each_widget_has_its_example_and_its_script() -> None:
    assert set(EXAMPLES) == set(INVITATIONS)
    for name in INVITATIONS:
        assert f"widget-{name}.js" in page_files()
        html = box(name, {"text": '"<&>"'}, recorded_html(name, {}))
        assert (
            'data-options="{&quot;text&quot;: &quot;\\&quot;&lt;&amp;&gt;\\&quot;&quot;}"' in html
        )
    with pytest.raises(ValueError, match="write"):
        box("writ", {}, "")
