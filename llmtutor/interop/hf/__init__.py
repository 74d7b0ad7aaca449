"""Chapter 09, the transformer: models in the folders of Hugging Face, read and written.

``load_hf(folder)`` and ``save_hf(model, folder)`` are the two names to know.
"""

from llmtutor.interop.hf.families import (
    FAMILIES,
    config_from_hf,
    config_to_hf,
    family_of,
    state_from_hf,
    state_to_hf,
)
from llmtutor.interop.hf.folder import load_hf, read_config, save_hf
from llmtutor.interop.hf.tokenizer import (
    HFTokenizer,
    load_hf_with_tokenizer,
    save_hf_with_tokenizer,
)

__all__ = [
    "FAMILIES",
    "HFTokenizer",
    "config_from_hf",
    "config_to_hf",
    "family_of",
    "load_hf",
    "load_hf_with_tokenizer",
    "read_config",
    "save_hf",
    "save_hf_with_tokenizer",
    "state_from_hf",
    "state_to_hf",
]
