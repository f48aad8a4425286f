"""A synthetic chest archive with known answers."""
