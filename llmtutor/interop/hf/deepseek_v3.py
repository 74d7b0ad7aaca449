"""Chapter 15, mla: DeepSeek-V3 (DeepSeek-AI 2024) and R1, whose router balances by a bias."""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from llmtutor.interop.hf.deepseek_v2 import DeepseekV2
from llmtutor.interop.hf.family import Entry
from llmtutor.interop.hf.keys import Keys
from llmtutor.layers.moe import MoEConfig
from llmtutor.model.config import ModelConfig

CORRECTION = "gate.correction", "gate.e_score_correction_bias"
"""Ours, theirs."""


class DeepseekV3(DeepseekV2):
    """A DeepSeek-V2 with sigmoid scores, and groups as good as their two best experts.

    The head for the token after next, ``num_nextn_predict_layers``, is not part of the model.
    """

    model_type: ClassVar[str] = "deepseek_v3"
    architecture: ClassVar[str] = "DeepseekV3ForCausalLM"
    inside: ClassVar[Mapping[str, str]] = {**DeepseekV2.inside, "ffn.router": "mlp.gate"}
    defaults: ClassVar[Mapping[str, Any]] = {
        "first_k_dense_replace": 3,
        "n_routed_experts": 256,
        "n_shared_experts": 1,
        "moe_intermediate_size": 2048,
        "num_experts_per_tok": 8,
        "routed_scaling_factor": 2.5,
    }

    def _read_pairing(self, keys: Keys) -> Any:
        return "interleaved" if keys.flag("rope_interleave", True) else "half"

    def _read_router(self, keys: Keys) -> dict[str, Any]:
        keys.only({"scoring_func": "sigmoid", "topk_method": "noaux_tc"})
        normalise = keys.flag("norm_topk_prob", True)
        groups, best = keys.size("n_group", 8), keys.size("topk_group", 4)
        inside = {"n_groups": groups, "top_groups": best, "group_score": "top-2"}
        return {
            "score": "sigmoid",
            "normalise": normalise,
            "bias_rate": 0.0,
            **(inside if groups > 1 else {}),
        }

    def write(self, config: ModelConfig) -> dict[str, Any]:
        """The keys."""
        values = super().write(config)
        mixer: Any = config.blocks[0].mixer
        return {**values, "rope_interleave": mixer.position.pairing == "interleaved"}

    def _write_router(self, ffn: MoEConfig) -> dict[str, Any]:
        router = ffn.router
        groups = {"n_group": router.n_groups, "topk_group": router.top_groups}
        return {"norm_topk_prob": router.normalise, **groups}

    def entries(self, config: ModelConfig) -> Iterator[Entry]:
        """The bias of the router has a name of its own."""
        for entry in super().entries(config):
            yield entry._replace(theirs=entry.theirs.replace(*CORRECTION))
