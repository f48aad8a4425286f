"""What this machine has, what each back end will use, and whether both compute what they should."""
