"""The text that activations are harvested on: documents, packed into sequences of tokens."""
