"""What sessions may cost, and when they are renewed."""

from __future__ import annotations

import pytest

from pqc_iiot import InvalidInputError
from pqc_iiot.session import Limits
from pqc_iiot.session.limits import Bucket
from session_ends import NOW, NUMBERS, ends

DAY = 86_400.0


def test_limits_are_those_of_the_protocol() -> None:
    limits = Limits()
    assert limits.window == 0, "strict order"
    assert limits.rekey_packets == 2**20 - 2**16
    assert limits.rekey_failures == 2**19
    assert limits.rekey_after == DAY
    assert (limits.answer_within, limits.repeat_at_most, limits.attempts) == (1, 30, 4)
    assert (limits.confirm_every, limits.confirm_within) == (128, 0.25)
    assert (limits.give_up, limits.silence, limits.grace) == (60, 60, 90)
    assert (limits.half_open_per_peer, limits.half_open) == (4, 512)
    assert (limits.sender_rate, limits.sender_burst, limits.total_rate) == (1, 5, 500)


@pytest.mark.parametrize(
    ("knob", "least", "most"),
    [("window", 0, 4096), ("rekey_packets", 1, NUMBERS), ("rekey_failures", 1, NUMBERS)],
)
def test_a_knob_has_bounds(knob: str, least: int, most: int) -> None:
    for value in (least, most):
        Limits(**{knob: value})
    for value in (least - 1, most + 1):
        with pytest.raises(InvalidInputError):
            Limits(**{knob: value})


def test_a_session_is_replaced_before_its_numbers_its_failures_or_its_days_are_used_up() -> None:
    limits = Limits(rekey_packets=3, rekey_failures=2)
    a, b = ends(limits)
    session_of_a, session_of_b = a.channel.session, b.channel.session
    packets = a.messages(2)
    b.hear(packets)
    assert not limits.is_due(session_of_a, DAY - 1)
    assert not limits.is_due(session_of_b, DAY - 1)
    assert limits.is_due(session_of_a, DAY)
    b.hear(a.messages(1))
    assert limits.is_due(session_of_a, 0)
    assert limits.is_due(session_of_b, 0)


def test_a_session_is_replaced_where_too_much_was_forged() -> None:
    limits = Limits(rekey_failures=2)
    a, b = ends(limits)
    (packet,) = a.messages(1)
    forged = packet[:-1] + bytes((packet[-1] ^ 1,))
    b.hear([forged])
    assert not limits.is_due(b.channel.session, 0)
    b.hear([forged])
    assert limits.is_due(b.channel.session, 0)


def test_a_session_is_used_no_more_after_two_days_or_its_last_number() -> None:
    limits = Limits()
    a, _ = ends()
    session = a.channel.session
    assert not limits.is_over(session, 2 * DAY - 1)
    assert limits.is_over(session, 2 * DAY)
    while session.sealed < NUMBERS - 1:
        session.seal_many(b"", [b""] * min(4096, NUMBERS - 1 - session.sealed))
    assert not limits.is_over(session, 0)
    session.seal(b"", b"")
    assert limits.is_over(session, 0)


def test_a_bucket_gives_its_burst_and_then_what_comes_back() -> None:
    bucket = Bucket(rate=2.0, burst=3.0)
    assert [bucket.take(NOW) for _ in range(5)] == [True] * 3 + [False] * 2
    assert [bucket.take(NOW + 0.5) for _ in range(2)] == [True, False]
    assert [bucket.take(NOW + 0.9), bucket.take(NOW + 1.0)] == [False, True], "nothing is lost"
    assert [bucket.take(NOW + 3600) for _ in range(4)] == [True] * 3 + [False]


def test_a_bucket_gains_nothing_where_time_goes_back() -> None:
    bucket = Bucket(rate=1.0, burst=2.0)
    assert [bucket.take(NOW), bucket.take(NOW - 100)] == [True, True]
    assert not bucket.take(NOW - 100)
