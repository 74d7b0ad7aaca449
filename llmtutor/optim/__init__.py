"""Optimizers, learning-rate schedules and clipping: how gradients become better weights."""

from llmtutor.optim.adamw import AdamW
from llmtutor.optim.clip import clip_grad_norm
from llmtutor.optim.groups import OPTIMIZERS, make_optimizer
from llmtutor.optim.muon import Muon, newton_schulz
from llmtutor.optim.schedules import SCHEDULES, Schedule, make_schedule
from llmtutor.optim.sgd import SGD

__all__ = [
    "OPTIMIZERS",
    "SCHEDULES",
    "SGD",
    "AdamW",
    "Muon",
    "Schedule",
    "clip_grad_norm",
    "make_optimizer",
    "make_schedule",
    "newton_schulz",
]
