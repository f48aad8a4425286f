"""Networks, and the folder in which a trained one is kept."""
