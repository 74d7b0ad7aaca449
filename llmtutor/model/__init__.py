"""Model room."""
