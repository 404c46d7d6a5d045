"""Why pairs of a task are left out."""

REASONS = {
    "length": "the answers have different numbers of tokens",
    "identity": "both sentences have the same tokens",
    "prefix": "the sentences share no beginning",
    "continuation": "the sentences share no word at their end",
}
"""Each in a word and in a clause."""
