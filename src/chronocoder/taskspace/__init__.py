"""Task spaces: how tasks are related to one another, by tuning copies of a model on each (Weber et al. 2024)."""
