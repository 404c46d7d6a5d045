"""What an experiment will cost, from its configuration alone. Nothing here imports torch or opens a store."""
