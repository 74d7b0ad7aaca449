"""RMSNorm beside LayerNorm, and ours beside torch's: forward and backward passes.

    python benchmarks/norms.py            # a result, also written to data/results
    python benchmarks/norms.py --quick    # a first look, not a result

One unit of work is the output of one norm with its gain (and LayerNorm's bias) for a batch of
vectors, and the gradients of the vectors and of the parameters from given gradients of the output,
in float32. All works of a shape take turns in one process with the same threads, after a warm-up
round, and outputs and gradients are compared before anything is timed. "torch" is
`torch.nn.functional`, "ours" the class that the book's models are built of, "as written" the
formula of chapter 07, line by line. The last line is one JSON object; its keys of the form
`SHAPE_rmsnorm_WHO_time_to_layernorm` are times of RMSNorm as parts of those of LayerNorm, by the
same WHO.
"""

import json
from collections.abc import Callable
from statistics import median

import torch
import torch.nn.functional as F
from _measure import Times, Work, from_command_line, in_turn, machine, ratio, record
from torch import Tensor

from llmtutor.layers.norms import LayerNorm, RMSNorm

SHAPES = ((8, 256, 128), (8, 256, 768))
EPS = 1e-5
WHO = ("torch", "ours", "as written")
Norm = Callable[[Tensor], Tensor]


def norms(kind: str, width: int) -> tuple[dict[str, Norm], list[Tensor]]:
    """The same norm three times, with one set of parameters; the peer comes first."""
    if kind == "rmsnorm":
        rms = RMSNorm(width, EPS)
        gain = rms.weight
        return {
            "torch": lambda x: F.rms_norm(x, (width,), gain, EPS),
            "ours": rms,
            "as written": lambda x: x / (x.square().mean(-1, keepdim=True) + EPS).sqrt() * gain,
        }, [gain]
    layer = LayerNorm(width, EPS)
    gain, bias = layer.weight, layer.bias
    assert bias is not None

    def written(x: Tensor) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        return centred / (centred.square().mean(-1, keepdim=True) + EPS).sqrt() * gain + bias

    return {
        "torch": lambda x: F.layer_norm(x, (width,), gain, bias, EPS),
        "ours": layer,
        "as written": written,
    }, [gain, bias]


def step(
    norm: Norm, x: Tensor, parameters: list[Tensor], upstream: Tensor
) -> Callable[[], list[Tensor]]:
    """Forward and backward; gradients are dropped before, as each training step does."""

    def work() -> list[Tensor]:
        for leaf in (x, *parameters):
            leaf.grad = None
        y = norm(x)
        y.backward(upstream)
        return [y.detach(), *(leaf.grad for leaf in (x, *parameters) if leaf.grad is not None)]

    return work


def works(shape: tuple[int, int, int]) -> dict[str, Work]:
    """All of one shape: "rmsnorm torch" and so on; what they compute is compared first."""
    torch.manual_seed(0)
    x = (3 * torch.randn(shape) + 1).requires_grad_()
    upstream = torch.randn(shape)
    made: dict[str, Work] = {}
    for kind in ("layernorm", "rmsnorm"):
        by_who, parameters = norms(kind, shape[-1])
        steps = {who: step(norm, x, parameters, upstream) for who, norm in by_who.items()}
        expected = steps["torch"]()
        for who, work in steps.items():
            for ours, theirs in zip(work(), expected, strict=True):
                torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=1e-4, msg=f"{kind}, {who}")
            made[f"{kind} {who}"] = work
    return made


def table(shape: tuple[int, int, int], times: Times) -> tuple[dict[str, float], dict[str, Times]]:
    """Print the times of one shape; ratios of medians, and the seconds by kind of norm."""
    label = "x".join(map(str, shape))
    print(f"\n{label}: {shape[0] * shape[1]:,} vectors of {shape[2]} numbers")
    print(f"{'':24}{'median':>10}{'min':>10}{'max':>10}{'to torch':>10}")
    figures: dict[str, float] = {}
    seconds: dict[str, Times] = {}
    for kind in ("layernorm", "rmsnorm"):
        own = {who: times[f"{kind} {who}"] for who in WHO}
        seconds[f"{label}_{kind}"] = own
        for who, values in own.items():
            print(
                f"  {kind + ', ' + who:22}{1e3 * median(values):8.3f}ms{1e3 * min(values):8.3f}ms"
                f"{1e3 * max(values):8.3f}ms{ratio(own, who):10.2f}"
            )
        figures[f"{label}_{kind}_time_to_torch"] = ratio(own)
        figures[f"{label}_{kind}_as_written_time_to_torch"] = ratio(own, "as written")
    for who in WHO:
        name = f"{label}_rmsnorm_{who.replace(' ', '_')}_time_to_layernorm"
        figures[name] = ratio(times, f"rmsnorm {who}", f"layernorm {who}")
    return figures, seconds


def main(quick: bool) -> None:
    about = machine("torch")
    rounds = 10 if quick else 300
    if quick:
        print("QUICK: few rounds. A first look, not a result.")
    print(f"{rounds} rounds, {torch.get_num_threads()} threads")
    figures: dict[str, object] = {"benchmark": "norms", "quick": quick}
    seconds: dict[str, Times] = {}
    for shape in SHAPES:
        of_shape, own = table(shape, in_turn(rounds, works(shape)))
        figures |= of_shape
        seconds |= own
    if not quick:
        record("norms", {**figures, **about}, seconds, threads=torch.get_num_threads())
    print(json.dumps(figures))


if __name__ == "__main__":
    from_command_line(main, __doc__)
