"""Chapter 19, ssm: Mamba (Gu and Dao 2023)."""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from llmtutor.interop.hf.family import Entry, Family, of_kind
from llmtutor.interop.hf.keys import DEEPEST, LONGEST, WIDEST, Keys
from llmtutor.layers.ffn import NoFeedForwardConfig
from llmtutor.layers.norms import RMSNormConfig
from llmtutor.layers.recurrent.mamba import MambaConfig
from llmtutor.model.block import BlockConfig
from llmtutor.model.config import ModelConfig

TRAINED = 2048
"""Tokens of the texts that the published models were trained on; their files name no longest."""
PARAMETERS = {"log_decay": "A_log", "skip": "D"}
"""Of the mixer itself: ours → theirs."""
BEFORE_TRAINING = (
    *("time_step_scale", "time_step_min", "time_step_max", "time_step_init_scheme"),
    *("time_step_floor", "rescale_prenorm_residual"),
)
"""Keys for how weights are drawn."""
HOW = "residual_in_fp32", "use_mambapy", "use_associative_scan", "fused_add_norm"
"""Keys for how the same numbers are computed; the first acts on half precision alone."""


class Mamba(Family):
    """Blocks of one norm and one mixer each."""

    model_type: ClassVar[str] = "mamba"
    architecture: ClassVar[str] = "MambaForCausalLM"
    prefix: ClassVar[str] = "backbone."
    outside: ClassVar[Mapping[str, str]] = {"embedding": "embeddings", "norm": "norm_f"}
    inside: ClassVar[Mapping[str, str]] = {
        "norm_1": "norm",
        "mixer": "mixer",
        "mixer.input": "mixer.in_proj",
        "mixer.conv": "mixer.conv1d",
        "mixer.select": "mixer.x_proj",
        "mixer.step": "mixer.dt_proj",
        "mixer.output": "mixer.out_proj",
    }

    def read(self, keys: Keys) -> ModelConfig:
        """Our configuration."""
        keys.only({"hidden_act": "silu", "rms_norm": True, "ssm_cfg": {}})
        d_model, expand = keys.size("hidden_size"), keys.size("expand", 2)
        n_layers = keys.size("num_hidden_layers", most=DEEPEST)
        self._repeated(keys, d_model, expand, n_layers)
        for key in (*BEFORE_TRAINING, *HOW, "pad_vocab_size_multiple"):
            keys.take(key, None)
        mixer = MambaConfig(
            d_state=keys.size("state_size", 16),
            expand=expand,
            d_conv=keys.size("conv_kernel", 4, most=WIDEST),
            dt_rank=self._rank(keys, d_model),
            bias=keys.flag("use_bias", False),
            conv_bias=keys.flag("use_conv_bias", True),
        )
        norm = RMSNormConfig(keys.number("layer_norm_epsilon", 1e-5))
        return ModelConfig(
            vocab_size=keys.size("vocab_size"),
            max_seq_len=keys.size("max_position_embeddings", TRAINED, most=LONGEST),
            d_model=d_model,
            blocks=n_layers * (BlockConfig(mixer, NoFeedForwardConfig(), norm),),
            norm=norm,
            tie_weights=keys.flag("tie_word_embeddings", True),
        )

    def _repeated(self, keys: Keys, d_model: int, expand: int, n_layers: int) -> None:
        """Sizes that files made from the first ones say once more under other names."""
        said = {"d_model": d_model, "n_layer": n_layers}
        said |= dict.fromkeys(("intermediate_size", "d_inner"), expand * d_model)
        for key, size in said.items():
            if (got := keys.take(key, size)) != size:
                expected = f"{size}, as hidden_size, expand and num_hidden_layers say, or nothing"
                raise keys.refused(key, got, expected)

    def _rank(self, keys: Keys, d_model: int) -> int | None:
        """None where it is what it would be anyway."""
        usual = MambaConfig().rank(d_model)
        if keys.left.get("time_step_rank", "auto") == "auto":
            keys.take("time_step_rank", None)
            return None
        rank = keys.size("time_step_rank")
        return None if rank == usual else rank

    def write(self, config: ModelConfig) -> dict[str, Any]:
        """The keys; the longest text is written too, which the library carries along."""
        block = config.blocks[0]
        mixer = of_kind(MambaConfig, block.mixer, "blocks[0].mixer")
        return {
            **self.write_sizes(config),
            "state_size": mixer.d_state,
            "expand": mixer.expand,
            "conv_kernel": mixer.d_conv,
            "time_step_rank": mixer.rank(config.d_model),
            "use_bias": mixer.bias,
            "use_conv_bias": mixer.conv_bias,
            "layer_norm_epsilon": getattr(block.norm, "eps", 1e-5),
        }

    def entries(self, config: ModelConfig) -> Iterator[Entry]:
        """Every tensor, with their names for those of the mixer itself."""
        for entry in super().entries(config):
            head, _, name = entry.theirs.rpartition(".")
            yield entry._replace(theirs=f"{head}.{PARAMETERS.get(name, name)}")
