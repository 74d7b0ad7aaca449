"""Where the published models of the gallery come from, and in which order they came."""

from typing import NamedTuple


class Source(NamedTuple):
    """When a model was published, where it is described, and what came before it in the gallery."""

    year: int
    paper: str
    address: str
    before: str = ""


_ARXIV = "https://arxiv.org/abs/"
_GPT2 = "https://cdn.openai.com/better-language-models/language_models_are_unsupervised_multitask_learners.pdf"
SOURCES = {
    "gpt2": Source(2019, "Radford et al. 2019, table 2", _GPT2),
    "gpt2-medium": Source(2019, "Radford et al. 2019, table 2", _GPT2, "gpt2"),
    "gpt2-large": Source(2019, "Radford et al. 2019, table 2", _GPT2, "gpt2-medium"),
    "gpt2-xl": Source(2019, "Radford et al. 2019, table 2", _GPT2, "gpt2-large"),
    "llama2-7b": Source(2023, "Touvron et al. 2023", f"{_ARXIV}2307.09288", "gpt2-xl"),
    "mistral-7b": Source(2023, "Jiang et al. 2023, table 1", f"{_ARXIV}2310.06825", "llama2-7b"),
    "mamba-130m": Source(2023, "Gu and Dao 2023, table 12", f"{_ARXIV}2312.00752", "gpt2"),
    "mixtral-8x7b": Source(2024, "Jiang et al. 2024, table 1", f"{_ARXIV}2401.04088", "mistral-7b"),
    "deepseek-v2": Source(
        2024, "DeepSeek-AI 2024, section 3.1.2", f"{_ARXIV}2405.04434", "llama2-7b"
    ),
    "deepseek-v2-lite": Source(
        2024, "DeepSeek-AI 2024, appendix B", f"{_ARXIV}2405.04434", "deepseek-v2"
    ),
    "deepseek-v3": Source(
        2024, "DeepSeek-AI 2024, section 4.2", f"{_ARXIV}2412.19437", "deepseek-v2"
    ),
    "llama3-8b": Source(2024, "Grattafiori et al. 2024", f"{_ARXIV}2407.21783", "llama2-7b"),
    "llama3.2-1b": Source(
        2024, "model card", "https://huggingface.co/meta-llama/Llama-3.2-1B", "llama3-8b"
    ),
    "gemma2-2b": Source(2024, "Riviere et al. 2024, table 1", f"{_ARXIV}2408.00118", "mistral-7b"),
    "qwen2.5-0.5b": Source(2024, "Qwen team 2024, table 1", f"{_ARXIV}2412.15115", "llama3.2-1b"),
    "olmo2-1b": Source(2025, "OLMo team 2025", f"{_ARXIV}2501.00656", "llama2-7b"),
    "gemma3-1b": Source(2025, "Gemma team 2025, table 1", f"{_ARXIV}2503.19786", "gemma2-2b"),
    "qwen3-0.6b": Source(2025, "Yang et al. 2025, table 1", f"{_ARXIV}2505.09388", "qwen2.5-0.5b"),
    "qwen3-30b-a3b": Source(2025, "Yang et al. 2025, table 2", f"{_ARXIV}2505.09388", "qwen3-0.6b"),
    "qwen3-next-80b-a3b": Source(
        2025,
        "model card",
        "https://huggingface.co/Qwen/Qwen3-Next-80B-A3B-Instruct",
        "qwen3-30b-a3b",
    ),
    "gpt-oss-20b": Source(2025, "OpenAI 2025, table 1", f"{_ARXIV}2508.10925", "mixtral-8x7b"),
}
"""Oldest first."""
