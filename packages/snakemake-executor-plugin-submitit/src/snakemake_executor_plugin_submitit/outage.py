"""A scheduler that does not answer for a while, as when its controller is restarted."""

import logging
from collections.abc import Callable
from time import monotonic, sleep
from typing import TypeVar

from snakemake_interface_common.exceptions import WorkflowError

from snakemake_executor_plugin_submitit.schedulers import NoAnswerError, StillRunningError

_FIRST_S, _LONGEST_S = 5.0, 60.0  # between one attempt and the next

Result = TypeVar("Result")


class Outage:
    """Says when to try again and when to give up; the user is told once that it began, and once that it is over."""

    def __init__(self, limit_min: float, logger: logging.Logger) -> None:
        """Begin with a scheduler that answers.

        Args:
            limit_min: minutes after which what waits for the scheduler is given up.
            logger: tells the user.
        """
        self._limit_min, self._logger = limit_min, logger
        self._since: float | None = None
        self._wait_s = self._next = 0.0

    @property
    def is_on(self) -> bool:
        """Whether the scheduler did not answer when it was last asked."""
        return self._since is not None

    @property
    def is_due(self) -> bool:
        """Whether it is time to ask it, at intervals that grow while it does not answer."""
        return self._since is None or monotonic() >= self._next

    @property
    def is_long(self) -> bool:
        """Whether it has not answered for so long that what waits for it is given up."""
        since = self._since  # which another thread may set
        return since is not None and monotonic() - since >= self._limit_min * 60

    def note(self, error: NoAnswerError) -> None:
        """Take note that the scheduler did not answer."""
        now = monotonic()
        if self._since is None:
            self._since, self._wait_s = now, _FIRST_S
            self._logger.warning(
                f"The scheduler does not answer ({error}). Jobs that run go on; what is to be submitted or cancelled"
                f" waits for up to {self._limit_min:g} min."
            )
        elif self.is_due:
            self._wait_s = min(2 * self._wait_s, _LONGEST_S)
        else:  # one who asked about something else was told the same
            return
        self._next = now + self._wait_s

    def end(self) -> None:
        """Take note that the scheduler answered."""
        since, self._since = self._since, None
        if since is not None:
            self._logger.warning(f"The scheduler answers again, after {(monotonic() - since) / 60:.1f} min.")

    def endure(self, act: Callable[[], Result]) -> Result:
        """Do what needs the scheduler, again and again until it answers, and return the result.

        Raises:
            WorkflowError: it does not answer for too long.
        """
        while True:
            try:
                result = act()
            except StillRunningError as error:
                raise WorkflowError(str(error)) from error
            except NoAnswerError as error:
                self.note(error)
                if self.is_long:
                    raise WorkflowError(f"{error}; nothing is lost: try again once the scheduler answers") from error
                sleep(self._wait_s)
            else:
                self.end()
                return result
