"""The same work done by the toolkit and by others, on the same machine in the same run."""
