"""From a store and a split to a trained model: configuration, step, loop, checkpoints."""
