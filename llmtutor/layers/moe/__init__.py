"""Chapter 18, moe: a feed-forward layer of many experts, of which each token uses a few.

``router`` chooses the experts of a token, ``capacity`` limits how many tokens one takes,
``dispatch`` brings the tokens to their experts and back, ``balance`` says how evenly they are used,
``layer`` is the whole.
"""

from llmtutor.layers.moe.layer import MoE, MoEConfig
from llmtutor.layers.moe.router import Router, RouterConfig, Routing

__all__ = ["MoE", "MoEConfig", "Router", "RouterConfig", "Routing"]
