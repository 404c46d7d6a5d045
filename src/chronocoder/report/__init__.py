"""The report of a suite: a directory of pages that work without a network."""
