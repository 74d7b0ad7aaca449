"""Chapter 09, the transformer: the keys of a ``config.json``, taken one by one until none is left.

Every key falls in one of four classes: translated; must have the one value that we have (``only``);
known to change no logit (``HARMLESS``); anything else is refused by name, because a key ignored is
a model that computes something else.
"""

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

from llmtutor.checks import check_integer, check_number

HARMLESS = {
    # Dropout acts in training only, and we have none.
    *("resid_pdrop", "embd_pdrop", "attn_pdrop", "attention_dropout", "hidden_dropout"),
    # Where the file comes from, and how a training run started.
    *("_name_or_path", "name_or_path", "architectures", "model_type", "transformers_version"),
    *("initializer_range", "_commit_hash", "finetuning_task", "gradient_checkpointing"),
    *("unsloth_fixed", "unsloth_version", "transformers.js_config"),
    # load_hf asks the weights themselves; n_ctx repeats n_positions; how work was cut long ago.
    *("dtype", "torch_dtype", "use_bfloat16", "n_ctx", "n_special", "predict_special_tokens"),
    *("pretraining_tp", "chunk_size_feed_forward", "torchscript", "_attn_implementation_autoset"),
    # How experts were kept in balance, and noise for them in training.
    *("router_aux_loss_coef", "output_router_logits", "router_jitter_noise"),
    # What the library returns and keeps.
    *("use_cache", "cache_implementation", "return_dict", "output_hidden_states", "output_past"),
    *("output_attentions", "tie_last_hidden_states", "is_decoder"),
    # Tokens, and how texts are generated if nobody says otherwise.
    *("bos_token_id", "eos_token_id", "pad_token_id", "sep_token_id", "decoder_start_token_id"),
    *("tokenizer_class", "prefix", "max_length", "min_length", "max_new_tokens", "do_sample"),
    *("temperature", "top_k", "top_p", "typical_p", "repetition_penalty", "length_penalty"),
    *("num_beams", "num_beam_groups", "diversity_penalty", "early_stopping", "bad_words_ids"),
    *("num_return_sequences", "no_repeat_ngram_size", "encoder_no_repeat_ngram_size"),
    *("forced_bos_token_id", "forced_eos_token_id", "suppress_tokens", "begin_suppress_tokens"),
    *("exponential_decay_length_penalty", "remove_invalid_values", "output_scores"),
    "return_dict_in_generate",
    # Heads for other tasks.
    *("id2label", "label2id", "num_labels", "_num_labels", "problem_type", "task_specific_params"),
    *("summary_type", "summary_use_proj", "summary_activation", "summary_proj_to_labels"),
    "summary_first_dropout",
}
ONLY: Mapping[str, Any] = {
    "is_encoder_decoder": False,
    "add_cross_attention": False,
    "cross_attention_hidden_size": None,
    "tie_encoder_decoder": False,
    "pruned_heads": {},
    "per_layer_config": None,
    "quantization_config": None,
}
"""The one value that every family has; also what an absent key means."""
WIDEST, DEEPEST, LONGEST = 2**20, 10_000, 2**31 - 1
"""Widths, numbers of layers and lengths beyond these are noise in a file, and no memory has them.
Within them the count of a matrix' entries is no overflow."""
_NEEDED: Any = object()


class KeyRefusedError(ValueError):
    """A key of a file has a value that we cannot use; the message names file, key and value."""


class Keys:
    """The keys of a JSON object that nobody has taken yet.

    ``where`` names the file in messages, ``part`` the place in it, such as "rope_parameters".

    >>> keys = Keys({"hidden_size": 64, "rms_norm_eps": "1e-6"})
    >>> keys.size("hidden_size"), list(keys.left)
    (64, ['rms_norm_eps'])
    """

    def __init__(
        self, values: Mapping[str, Any], where: str = "config.json", part: str | None = None
    ) -> None:
        self.where, self.part = where, part
        self.left = dict(values)

    def __contains__(self, key: str) -> bool:
        """Whether the key is there and nobody has taken it."""
        return key in self.left

    def refused(self, key: str, value: object, expected: str) -> KeyRefusedError:
        """The error for a value that we cannot use."""
        place = key if self.part is None else f"{key} of {self.part}"
        shown = repr(value)
        shown = shown if len(shown) <= 60 else f"{shown[:60]}…"
        return KeyRefusedError(f"{self.where} has {place} = {shown}; expected {expected}")

    def take(self, key: str, default: Any = _NEEDED) -> Any:
        """The value of a key, whatever it is; the default where it is absent.

        Raises:
            KeyRefusedError: an absent key without a default.
        """
        if key in self.left:
            return self.left.pop(key)
        if default is _NEEDED:
            place = "" if self.part is None else f"{self.part} of "
            raise KeyRefusedError(f"{place}{self.where} lacks {key}")
        return default

    def size(self, key: str, default: Any = _NEEDED, *, least: int = 1, most: int = WIDEST) -> int:
        """A whole number in ``least`` … ``most``."""
        value = self.take(key, default)
        try:
            check_integer(key, value, least)
        except ValueError:
            pass
        else:
            if value <= most:
                return value
        raise self.refused(key, value, f"a whole number from {least} to {most:,}")

    def size_or_none(self, key: str, default: int | None, most: int = WIDEST) -> int | None:
        """A whole number of at least 1, or null."""
        if self.left.get(key, default) is None:
            self.take(key, None)
            return None
        return self.size(key, default, most=most)

    def number(
        self, key: str, default: Any = _NEEDED, *, above: float = 0, most: float = math.inf
    ) -> float:
        """A finite number above ``above`` and up to ``most``."""
        value = self.take(key, default)
        try:
            number = float(check_number(key, value, above=above))
        except (ValueError, OverflowError):
            number = math.inf
        if math.isfinite(number) and number <= most:
            return number
        end = "" if most == math.inf else f" and up to {most:g}"
        raise self.refused(key, value, f"a number above {above:g}{end}")

    def number_or_none(self, key: str, default: float | None) -> float | None:
        """A finite number above 0, or null."""
        if self.left.get(key, default) is None:
            self.take(key, None)
            return None
        return self.number(key, default)

    def flag(self, key: str, default: bool) -> bool:
        """True or false."""
        value = self.take(key, default)
        if not isinstance(value, bool):
            raise self.refused(key, value, "true or false")
        return value

    def name(self, key: str, names: Mapping[str, str], default: str) -> str:
        """What we call it: ``names`` goes from their names to ours."""
        value = self.take(key, default)
        if not isinstance(value, str) or value not in names:
            raise self.refused(key, value, listed(names))
        return names[value]

    def only(self, values: Mapping[str, Any]) -> None:
        """Take these keys, where they are there; each must have this one value.

        Null stands for a value that counts as false, and for no other.
        """
        for key, one in values.items():
            if key in self.left:
                got = self.take(key)
                if got != one and not (got is None and not one):
                    raise self.refused(key, got, f"{json.dumps(one)}, which is all that we have")

    def inside(self, key: str) -> "Keys | None":
        """The keys of an object inside; None where it is absent, null or empty."""
        value = self.take(key, None)
        if value is not None and not isinstance(value, Mapping):
            raise self.refused(key, value, "an object")
        part = key if self.part is None else f"{key} of {self.part}"
        return Keys(value, self.where, part) if value else None

    def finish(self, harmless: Iterable[str] = ()) -> None:
        """Refuse what nobody has taken, but for keys known to change no logit."""
        rest = [key for key in self.left if key not in harmless]
        if rest:
            raise self.refused(
                rest[0],
                self.left[rest[0]],
                "no key of that name: we do not know it, and it may change what the model computes",
            )


def listed(names: Iterable[str]) -> str:
    """In a message: "gelu, silu"."""
    return ", ".join(sorted(names))
