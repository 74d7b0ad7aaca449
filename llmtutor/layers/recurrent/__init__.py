"""Layers that carry a state of fixed size from token to token, and what they are made of."""
