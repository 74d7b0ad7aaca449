"""Named, seeded, resumable studies; their raw results are committed in data/results."""
