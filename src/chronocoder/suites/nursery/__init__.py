"""The nursery: a miniature pretraining run on text from a grammar, embedded in the project."""
