"""From a trained model to text: filters and draws, decoding with a cache, speculative decoding."""
