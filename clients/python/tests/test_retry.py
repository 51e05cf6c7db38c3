"""Backoff and the tries of one call."""

import grpc

from fanfare import Error
from fanfare._retry import PAUSE_MAX, PAUSE_MIN, Attempts, Backoff


def test_pauses_double_up_to_the_longest_and_are_random():
    for _ in range(200):
        backoff, step = Backoff(), PAUSE_MIN
        for _ in range(10):
            assert step / 2 <= backoff.pause() <= step
            step = min(step * 2, PAUSE_MAX)
        backoff.reset()
        assert backoff.pause() <= PAUSE_MIN
    assert len({Backoff().pause() for _ in range(20)}) > 1


def test_a_pause_beyond_the_deadline_ends_the_tries():
    gone = Error(grpc.StatusCode.UNAVAILABLE, "gone")
    assert Attempts(10).pause_after(gone) is not None
    assert Attempts(0.01).pause_after(gone) is None


def test_the_server_says_how_long_to_wait():
    error = Error(
        grpc.StatusCode.RESOURCE_EXHAUSTED, "too fast", reason="REASON_LIMIT", metadata={"retry_after_millis": "2500"}
    )
    assert Attempts(10).pause_after(error) == 2.5
    assert Attempts(2).pause_after(error) is None


def test_only_what_may_succeed_later_is_retryable():
    for code, reason, retryable in [
        ("UNAVAILABLE", None, True),
        ("UNKNOWN", None, True),
        ("CANCELLED", None, True),
        ("DEADLINE_EXCEEDED", None, True),
        ("UNAVAILABLE", "REASON_SHUTDOWN", True),
        ("OUT_OF_RANGE", None, False),
        ("OUT_OF_RANGE", "REASON_RESET", False),
        ("PERMISSION_DENIED", "REASON_FORBIDDEN", False),
        ("UNAVAILABLE", "REASON_OF_A_NEWER_SERVER", True),
        ("INVALID_ARGUMENT", "REASON_OF_A_NEWER_SERVER", False),
    ]:
        assert Error(grpc.StatusCode[code], "", reason=reason).retryable is retryable, (code, reason)
