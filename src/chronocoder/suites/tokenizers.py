"""Loading tokenizers. Imports no torch: jobs that only tokenise start quickly."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from chronocoder.errors import ConfigError
from chronocoder.stores import strings
from chronocoder.suites.agreement import rows_of_model


def load_tokenizer(path: Path) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a directory; where it has a tokenizer.json that file says everything.

    Raises:
        ConfigError: the directory does not exist or holds no tokenizer.
    """
    if not path.is_dir():
        raise ConfigError(f"{path}: no such directory; correct the path of the tokenizer")
    if (file := path / "tokenizer.json").is_file():
        try:
            return PreTrainedTokenizerFast.from_pretrained(path, local_files_only=True)
        except Exception as error:  # the library raises nothing narrower
            raise ConfigError(f"{file}: holds no tokenizer ({error!r}); save or download it again") from error

    from transformers import AutoTokenizer  # here, because it imports torch

    try:
        return AutoTokenizer.from_pretrained(path, local_files_only=True)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: no readable tokenizer ({error}); save one there") from error


def separator_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the token that stands before every document and every prefix.

    It is the beginning-of-sequence token where the tokenizer has one, else the end-of-sequence token: packed
    pretraining text puts that one between documents.

    Raises:
        ConfigError: the tokenizer has neither.
    """
    for token_id in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        if token_id is not None:
            return int(token_id)
    raise ConfigError(
        f"{tokenizer.name_or_path}: the tokenizer has neither bos_token nor eos_token; name one in"
        " its tokenizer_config.json"
    )


@contextmanager
def words_known(tokenizer: PreTrainedTokenizerBase) -> Iterator[None]:
    """Say what the vocabulary lacks where a text cannot be encoded in it.

    Raises:
        ConfigError: a word is unknown, and the tokenizer has no token for such; names its directory and its size.
    """
    try:
        yield
    except Exception as error:
        if type(error) is not Exception:  # the library raises nothing narrower
            raise
        rows = rows_of_model(Path(tokenizer.name_or_path))
        model = f", and the model {rows}" if rows else ""
        raise ConfigError(
            f"{tokenizer.name_or_path}: the tokenizer has {len(tokenizer)} tokens{model}, none of them for words that"
            f" it does not know ({error}); give the tokenizer that the checkpoints were trained with"
        ) from error


def token_texts(token_ids: np.ndarray, tokenizer: PreTrainedTokenizerBase) -> np.ndarray:
    """Return the text of each token, of any shape; empty where an id is negative."""
    known = {int(number): tokenizer.decode([int(number)]) for number in np.unique(token_ids) if number >= 0}
    return strings([known.get(int(number), "") for number in token_ids.flat]).reshape(token_ids.shape)
