"""Interop room."""
