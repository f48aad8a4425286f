"""From cases to a store: the plan, the extraction of one case, the workers, the commit."""
