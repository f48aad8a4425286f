"""From a store to batches: who is in them, how they are changed, and who makes them."""
