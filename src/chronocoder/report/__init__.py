"""The report of a suite: one HTML file that works without a network."""
