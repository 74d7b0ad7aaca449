"""What a model is worth: its loss in several units, and whether it looks into the future."""
