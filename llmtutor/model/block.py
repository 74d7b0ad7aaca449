"""Chapter 09, the transformer: one block, two sub-layers around the residual stream."""

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from typing import Any, Literal, get_args

from jaxtyping import Float
from torch import Tensor, nn

from llmtutor.checks import check_name, check_types
from llmtutor.layers.extras import Extras, joined, named, split_extras
from llmtutor.layers.ffn import FeedForwardConfig
from llmtutor.layers.mixer import Cache, MixerConfig
from llmtutor.layers.norms import NormConfig, RMSNormConfig
from llmtutor.layers.part import Costs, Load, Part, Site
from llmtutor.layers.registry import part_from_dict

Placement = Literal["pre", "post", "res-post", "sandwich"]


class Block(nn.Module):
    """A mixer moves information between positions, a feed-forward part works on each by itself.

    There may be none (``ffn`` and ``norm_2`` None): then the block is its mixer alone.

    - ``"pre"``: ``x + f(norm(x))``. The stream itself is never normalised, so the gradient reaches
      the first block unchanged (Xiong et al. 2020).
    - ``"post"``: ``norm(x + f(x))`` (Vaswani et al. 2017).
    - ``"res-post"``: ``x + norm(f(x))`` (Liu et al. 2022, Swin V2; OLMo 2).
    - ``"sandwich"``: ``x + after(f(norm(x)))`` (Ding et al. 2021; Gemma 2), two more norms.

    f is first the mixer (``norm_1``, ``after_1``), then the feed-forward part (``norm_2``,
    ``after_2``). (batch, seq, d_model) → (batch, seq, d_model); where a sub-layer returns
    ``Extras`` besides its output, so does the block.

    Raises:
        ValueError: unknown placement; the two norms after a sub-layer without "sandwich", or
            "sandwich" without them.
    """

    def __init__(
        self,
        mixer: nn.Module,
        ffn: nn.Module | None,
        norm_1: nn.Module,
        norm_2: nn.Module | None,
        placement: Placement = "pre",
        *,
        after: Sequence[nn.Module] | None = None,
    ) -> None:
        super().__init__()
        check_name("placement", placement, get_args(Placement))
        if (after is None) == (placement == "sandwich"):
            raise ValueError(
                'norms "after" are for placement "sandwich", which needs them: got '
                f"placement {placement!r} and {'none' if after is None else 'two'}"
            )
        self.mixer, self.ffn = mixer, ffn
        self.norm_1, self.norm_2 = norm_1, norm_2
        self.after_1 = None if after is None else after[0]
        self.after_2 = None if after is None or ffn is None else after[1]
        self.placement = placement

    def forward(
        self, x: Float[Tensor, "batch seq d_model"], *, cache: Cache | None = None
    ) -> Float[Tensor, "batch seq d_model"] | tuple[Tensor, Extras]:
        """What the two sub-layers add to ``x``, added; a ``cache`` is the mixer's own."""
        options = {} if cache is None else {"cache": cache}
        x, first = self._added(x, self.mixer, self.norm_1, self.after_1, options)
        extras = named(first, "mixer")
        if self.ffn is not None and self.norm_2 is not None:
            x, second = self._added(x, self.ffn, self.norm_2, self.after_2, {})
            extras = joined(extras, named(second, "ffn"))
        return (x, extras) if any(extras) else x

    def _added(
        self,
        x: Tensor,
        f: nn.Module,
        norm: nn.Module,
        after: nn.Module | None,
        options: dict[str, Any],
    ) -> tuple[Tensor, Extras]:
        before = self.placement in ("pre", "sandwich")
        y, extras = split_extras(f(norm(x) if before else x, **options))
        if self.placement == "post":
            return norm(x + y), extras
        if self.placement == "res-post":
            return x + norm(y), extras
        return x + (y if after is None else after(y)), extras

    def extra_repr(self) -> str:
        """For ``print(model)``."""
        return f"placement={self.placement!r}"


@dataclass(frozen=True)
class BlockConfig:
    """A mixer, a feed-forward part, and the norms around them.

    Raises:
        ValueError: a part of another role, an unknown placement.
    """

    mixer: MixerConfig
    ffn: FeedForwardConfig
    norm: NormConfig = RMSNormConfig()  # noqa: RUF009 (it is frozen)
    """All norms of the block."""
    norm_placement: Placement = "pre"
    """Where they stand, see ``Block``."""

    def __post_init__(self) -> None:
        check_types(self, {**ROLES, "norm_placement": Placement})

    def build(self, site: Site) -> Block:
        """The block at its place."""
        mixer = self.mixer.build(site)
        ffn = self.ffn.build(site) if self.ffn.present else None
        norms = [self.norm.build(site.d_model) for _ in range(self.n_norms)]
        before = norms[: self.n_sub_layers]
        norm_2 = None if ffn is None else before[1]
        after = norms[self.n_sub_layers :] or None
        return Block(mixer, ffn, before[0], norm_2, self.norm_placement, after=after)

    @property
    def n_sub_layers(self) -> int:
        """How often it writes into the residual stream."""
        return 1 + self.ffn.present

    @property
    def n_norms(self) -> int:
        """One for each sub-layer, or two."""
        return (2 if self.norm_placement == "sandwich" else 1) * self.n_sub_layers

    def norm_costs(self, site: Site, load: Load) -> Costs:
        """Of all its norms."""
        one = self.norm.costs(site.d_model, load.tokens_bytes)
        return sum(self.n_norms * [one], Costs())

    def costs(self, site: Site, load: Load) -> Costs:
        """All parts together; without tables of positions."""
        parts = self.mixer.costs(site, load) + self.ffn.costs(site, load)
        return parts + self.norm_costs(site, load)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as in JSON."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {n: v.to_dict() if isinstance(v, Part) else v for n, v in values.items()}

    @classmethod
    def from_dict(cls, values: Any, where: str) -> "BlockConfig":
        """The inverse of ``to_dict``; ``where`` names its place in messages (``ValueError``)."""
        return cls(**fields_from_dict(cls, values, ROLES, where))


ROLES: dict[str, type[Part]] = {"mixer": MixerConfig, "ffn": FeedForwardConfig, "norm": NormConfig}


def fields_from_dict(
    record: type, values: Any, roles: Mapping[str, type[Part]], where: str = ""
) -> dict[str, Any]:
    """What ``to_dict`` of a ``record`` wrote, with the parts of the ``roles`` made again.

    Raises:
        ValueError: no object, unknown or missing fields, what ``part_from_dict`` refuses.
    """
    whole, names = where or "the configuration", [f.name for f in fields(record)]
    if not isinstance(values, Mapping):
        raise ValueError(f"{whole} must be an object with {', '.join(names)}, got {values!r:.60}")
    for name in values:
        check_name(f"field of {whole}", name, names)
    needed = [f.name for f in fields(record) if f.default is MISSING]
    if missing := [name for name in needed if name not in values]:
        raise ValueError(f"{whole} lacks {', '.join(missing)}")
    parts = {
        name: part_from_dict(values[name], role, f"{where}.{name}".lstrip("."))
        for name, role in roles.items()
        if name in values and values[name] is not getattr(record, name, MISSING)  # such as None
    }
    return {**values, **parts}
