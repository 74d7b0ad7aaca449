"""Layers room."""
