"""Tokenizer room."""
