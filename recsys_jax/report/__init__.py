"""One page of a run: a file that opens offline, for people who will not read tables."""
