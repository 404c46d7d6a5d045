"""The files of a tokenizer. Imports nothing heavy: jobs that only copy them start at once."""

import re
import shutil
from pathlib import Path

from chronocoder.errors import ConfigError
from chronocoder.stores import whole_directory

TOKENIZER = re.compile(
    r"tokenizer.*\.(json|model)|.*\.(tiktoken|jinja)|(vocab|merges|special_tokens_map|added_tokens)\..*"
)
CONFIGURATION = re.compile(r"config\.json|generation_config\.json|.*\.model")
"""Files beside a model's weights; older tokenizers are told by them too."""


def copy_tokenizer(source: Path, output: Path) -> None:
    """Copy the tokenizer of a directory, and the configuration that some of them are told by.

    Args:
        source: a Hugging Face directory.
        output: the directory; it appears whole.

    Raises:
        ConfigError: there is no tokenizer.
    """
    files = [file for file in sorted(source.glob("*")) if file.is_file()]
    copied = [file for file in files if TOKENIZER.fullmatch(file.name) or CONFIGURATION.fullmatch(file.name)]
    if all(file.suffix == ".json" and CONFIGURATION.fullmatch(file.name) for file in copied):
        raise ConfigError(f"{source}: holds no tokenizer; save the suite's there with tokenizer.save_pretrained")
    with whole_directory(output) as partial:
        for file in copied:
            shutil.copyfile(file, partial / file.name)
