"""The model inside the page: an engine in JavaScript, weights in scripts, and their widgets."""
