"""The training loop: one step, many steps, checkpoints, logs, several processes."""
