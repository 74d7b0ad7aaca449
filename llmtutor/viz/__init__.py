"""Viz room."""
