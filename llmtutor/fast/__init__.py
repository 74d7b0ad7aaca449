"""What exists for speed alone: asked for by name, equal to the plain form, gains on record."""
