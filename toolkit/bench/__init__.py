"""The instrument: how fast every stage runs on a machine, of what the machine can do, and what to set."""
