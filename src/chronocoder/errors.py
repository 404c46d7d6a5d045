"""The errors a user can mend: each names the key or file, the value found and the remedy."""


class ChronocoderError(Exception):
    """Base of all errors that are the input's and not the program's."""


class ConfigError(ChronocoderError):
    """The configuration contradicts itself or what it names."""


class StoreError(ChronocoderError):
    """A Zarr store is missing, incomplete, damaged, or does not fit the other inputs."""


class TaskError(ChronocoderError):
    """A minimal-pair task cannot be used."""


class CorpusError(ChronocoderError):
    """A corpus cannot supply what is asked of it."""


class SiteError(ChronocoderError):
    """A site does not exist in the model."""


class NonFiniteError(ChronocoderError):
    """A number that has to be finite is NaN or infinite."""


class StoppedError(ChronocoderError):
    """A signal ended the work; what was done is saved, and the same command goes on with it.

    Attributes:
        status: the exit status by which shells tell of the signal, 128 and its number.
    """

    def __init__(self, signal: int, message: str) -> None:
        super().__init__(message)
        self.status = 128 + signal
