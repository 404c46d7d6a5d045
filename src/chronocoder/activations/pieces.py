"""The unit in which activations are stored, read and shuffled."""

PIECE_TOKENS = 1024
PIECES_PER_SHARD = 8


def sequences_per_piece(sequence_length: int) -> int:
    """Return how many whole sequences make a piece: the fewest that hold `PIECE_TOKENS` tokens but their first ones.

    Whole sequences, so that a model that is run for a piece computes nothing that the piece does not hold.
    """
    return -(-PIECE_TOKENS // (sequence_length - 1))
