"""Evaluate room."""
