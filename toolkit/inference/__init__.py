"""What a trained model says: on a test side, on a raw archive, and why."""
