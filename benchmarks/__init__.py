"""The evidence: what is claimed about speed, and the scripts that anyone can rerun."""
