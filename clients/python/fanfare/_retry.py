"""How long to go on trying, and how long to wait in between."""

from __future__ import annotations

import random
import time

from fanfare._errors import Error

PAUSE_MIN = 0.1
"""The first pause between two tries, in seconds."""
PAUSE_MAX = 5.0
"""The longest, in seconds."""
ATTEMPT_MAX = 5.0
"""One try takes at most so long, in seconds: a server that hangs costs no more than this."""
DEADLINE = 15.0
"""All tries together, in seconds, unless told otherwise."""


class Backoff:
    """Pauses that double from try to try, each of random length, so that many producers do not come back at once."""

    def __init__(self) -> None:
        self._next = PAUSE_MIN

    def pause(self) -> float:
        """The next pause, in seconds: between half and the whole of the step that has been reached."""
        step, self._next = self._next, min(self._next * 2, PAUSE_MAX)
        return random.uniform(step / 2, step)

    def reset(self) -> None:
        """Begins again with the shortest pause."""
        self._next = PAUSE_MIN


class Attempts:
    """The tries of one call, within one deadline."""

    def __init__(self, deadline: float) -> None:
        self._end = time.monotonic() + deadline
        self._backoff = Backoff()
        self._renewed = False

    def timeout(self) -> float:
        """How long the next try may take, in seconds."""
        return max(min(self._end - time.monotonic(), ATTEMPT_MAX), 0.001)

    def remaining(self) -> float:
        """What is left of the deadline, in seconds."""
        return max(self._end - time.monotonic(), 0.001)

    def pause_after(self, error: Error) -> float | None:
        """How long to wait before the next try, in seconds; None when there shall be none."""
        if not error.retryable:
            return None
        pause = max(self._backoff.pause(), error.retry_after)
        return pause if time.monotonic() + pause < self._end else None

    def may_renew(self, error: Error) -> bool:
        """Whether it is worth while to ask for another token: once a call."""
        renew = is_token_refused(error) and not self._renewed
        self._renewed = self._renewed or renew
        return renew


def is_token_refused(error: Error) -> bool:
    """The token itself is the matter, so that another one may do."""
    return error.reason in ("REASON_TOKEN_EXPIRED", "REASON_TOKEN_REVOKED", "REASON_INVALID_TOKEN")
