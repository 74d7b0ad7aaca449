"""The parts of a network; they take plain values, never the configuration of a model."""
