"""Pages for people: one file of HTML each, which opens anywhere and asks the network for nothing."""
