"""Chapter 22, evaluation: benchmarks, from their published files to questions."""
