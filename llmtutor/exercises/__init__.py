"""Exercises room."""
