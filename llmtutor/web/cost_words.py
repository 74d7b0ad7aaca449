"""Chapter 09, the transformer: what the widget Cost calls sizes, parts and units."""

from typing import Any

YES_NO = [["true", "yes"], ["false", "no"]]
SIZES: dict[str, list[Any]] = {
    "n_layers": ["Blocks", 1],
    "d_model": ["Width of the stream", 64],
    "vocab_size": ["Tokens in the vocabulary", 1],
    "tie_weights": ["Output shares the embedding", YES_NO],
    "max_seq_len": ["Rows of the table of positions", 64],
    "attention": ["Keys and values from", [["heads", "each head"], ["latent", "a latent"]]],
    "n_heads": ["Heads of queries", 1],
    "n_kv_heads": ["Heads of keys and values", []],
    "head_dim": ["Width of a head (0: d_model / n_heads)", 16],
    "window": ["Tokens in a window (0: all)", 64],
    "full_every": ["Blocks from one without window to the next (0: none)", 1],
    "kv_rank": ["Latent of keys and values", 16],
    "q_rank": ["Latent of queries (0: none)", 16],
    "nope_dim": ["Of a head, without position", 16],
    "rope_dim": ["Of a head, with position", 8],
    "v_dim": ["Width of a value", 16],
    "ffn": ["Feed-forward part", [["dense", "one layer"], ["experts", "experts"]]],
    "d_ff": ["Width of the layer", 64],
    "gated": ["With a gate", YES_NO],
    "n_experts": ["Experts to choose from", 1],
    "top_k": ["Experts of a token", 1],
    "d_expert": ["Width of an expert", 64],
    "n_shared": ["Experts for all tokens", 1],
    "n_dense": ["First blocks without experts", 1],
}
"""What each size that moves is, and the step of its arrow keys or the values to choose from (those
of ``n_kv_heads`` follow from ``n_heads``)."""
FIRST = {
    "transformer": ["n_layers", "d_model", "n_heads", "d_ff", "vocab_size", "tie_weights"],
    "gqa": ["n_heads", "n_kv_heads", "head_dim", "window", "full_every"],
    "mla": [
        *("attention", "n_heads", "n_kv_heads", "head_dim"),
        *("kv_rank", "q_rank", "nope_dim", "rope_dim", "v_dim"),
    ],
    "moe": ["ffn", "d_ff", "n_experts", "top_k", "d_expert", "n_shared", "n_dense"],
}
"""By what a chapter teaches, the sizes that stand first."""
PARTS = {
    "embedding": "embedding",
    "position": "positions",
    "attention": "attention",
    "ffn": "feed-forward",
    "idle": "idle experts",
    "norms": "norms",
    "head": "output",
}
"""Where parameters sit: names in ``page/costs.js``, and on the page."""
COUNTS = {" T": 10**12, " B": 10**9, " M": 10**6, " k": 10**3, "": 1}
FLOPS = {" TFLOP": 10**12, " GFLOP": 10**9, " MFLOP": 10**6, " kFLOP": 10**3, " FLOP": 1}
BYTES = {" TiB": 2**40, " GiB": 2**30, " MiB": 2**20, " KiB": 2**10, " bytes": 1}
UNITS = {"counts": COUNTS, "flops": FLOPS, "bytes": BYTES}
WEIGHTS = {"float32": 32, "bfloat16": 16, "int8": 8, "4 bit": 4}
"""Bits of a weight."""
CACHES = {"float32": 4, "bfloat16": 2, "int8": 1}
"""Bytes of a number in the cache."""
LEGEND = (
    "B is 10⁹, GiB is 2³⁰ bytes. FLOPs are those of the matrix products for the token at the end "
    "of the text; the cache is that of one text, in all blocks. Training: weights, gradients and "
    "AdamW's two moments in float32; activations come on top. The scales that 8 and 4 bits need "
    "are not counted."
)
ROWS = (
    *("parameters", "used by one token", "FLOPs for one token"),
    *("KV cache", "weights", "training, float32"),
)
