"""Optimizers, learning-rate schedules and clipping: how gradients become better weights."""
