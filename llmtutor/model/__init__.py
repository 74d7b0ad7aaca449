"""Parts joined into language models: counted ones, and the transformer with its presets."""
