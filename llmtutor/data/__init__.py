"""Data room."""
