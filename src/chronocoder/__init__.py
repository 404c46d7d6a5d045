"""Chronocoder: shows when a language model learns what it knows."""

__version__ = "0.1.0"
