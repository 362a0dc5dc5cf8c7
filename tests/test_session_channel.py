"""One session's two ends: who tells and asks when, what silence means, when nobody looks."""

from __future__ import annotations

import pytest

from pqc_iiot import InvalidFrameError, Message, StateError
from pqc_iiot.session import Fate, Limits, Report
from pqc_iiot.session.channel import NEVER
from session_ends import NOW, NUMBERS, End, ends


def waits(end: End, times: int) -> list[float]:
    """How long it waits before each of its next questions."""
    found = []
    now = NOW
    for _ in range(times):
        found.append(end.channel.due - now)
        now = end.channel.due
        end.channel.tick(now)
    return found


def test_where_nothing_was_sent_nothing_is_asked_or_told() -> None:
    for end in ends():
        assert end.channel.due == NEVER
        assert not end.channel.asking
        end.channel.tick(NOW + 3600)
        assert end.take() == []


def test_what_arrived_is_told_a_quarter_of_a_second_after_the_first_packet() -> None:
    a, b = ends()
    b.hear(a.messages(2))
    b.hear(a.messages(1), NOW + 0.2)
    assert b.channel.due == NOW + 0.25
    assert b.take() == []
    b.channel.tick(NOW + 0.25)
    (told,) = b.take()
    assert b.channel.due == NEVER
    assert a.channel.open_control(NOW + 1, told) == b""
    assert a.emitted == [Report(range(3), Fate.CONFIRMED, "b")]


def test_what_arrived_is_told_at_once_after_128_packets() -> None:
    a, b = ends()
    for _ in range(2):
        b.hear(a.messages(127))
        assert b.take() == []
        b.hear(a.messages(1))
        assert len(b.take()) == 1
        assert b.channel.due == NEVER


def test_only_what_is_genuine_counts_as_heard() -> None:
    a, b = ends()
    (packet,) = a.messages(1)
    assert b.hear([packet[:-1] + bytes((packet[-1] ^ 1,))], NOW + 1) == [b.channel.forged]
    assert (b.channel.heard, b.channel.due) == (NOW, NEVER)
    b.hear([packet], NOW + 2)
    assert b.channel.heard == NOW + 2


def test_questions_are_asked_after_1_2_4_and_8_seconds_and_four_unanswered_mean_silence() -> None:
    a, _ = ends()
    a.messages(1)
    assert waits(a, 1) == [1.25]
    assert a.channel.asking
    found = []
    now = NOW + 1.25
    for wait in (1, 2, 4, 8):
        found.append((len(a.take()), a.channel.doubtful, a.channel.silent))
        a.channel.tick(now + wait - 0.01)
        assert a.take() == []
        now += wait
        a.channel.tick(now)
    assert found == [(1, False, False), (1, False, False), (1, True, False), (1, True, False)]
    assert a.channel.silent
    assert a.take() == [], "a fifth would change nothing"


def test_no_question_waits_longer_than_half_a_minute() -> None:
    a, _ = ends(Limits(attempts=9))
    a.messages(1)
    assert waits(a, 8) == [1.25, 1, 2, 4, 8, 16, 30, 30]


def test_a_question_is_answered_at_once_and_what_is_open_then_is_asked_for_again() -> None:
    a, b = ends()
    b.hear(a.messages(1))
    a.channel.ask(NOW)
    a.channel.ask(NOW)
    (question,) = a.take()
    later = a.messages(1)
    assert b.channel.open_control(NOW, question) == b""
    (answer,) = b.take()
    a.channel.open_control(NOW + 1, answer)
    assert a.emitted == [Report(range(1), Fate.CONFIRMED, "b")]
    assert not a.channel.asking
    assert a.channel.due == NOW + 1 + 1.25
    b.hear(later)
    b.channel.tick(NOW + 2)
    a.channel.open_control(NOW + 2, *b.take())
    assert a.channel.due == NEVER


def test_control_that_nobody_knows_is_refused() -> None:
    a, b = ends()
    with pytest.raises(InvalidFrameError):
        b.channel.open_control(NOW, a.channel.session.seal(b"", b"\x04"))
    assert b.take() == []


def test_where_all_numbers_are_used_up_nothing_is_asked_or_told_and_nothing_fails() -> None:
    a, b = ends()
    a.messages(1)
    packets = b.messages(1)
    while a.channel.session.sealed < NUMBERS:
        a.channel.session.seal_many(b"", [b""] * 4096)
    (message,) = a.hear(packets)
    assert isinstance(message, Message)
    a.channel.tick(NOW + 2)
    assert a.take() == []
    with pytest.raises(StateError):
        a.messages(1)


def test_few_packets_and_not_for_long_go_out_unasked() -> None:
    a, _ = ends()
    a.messages(1)
    assert not a.channel.at_ease(NOW), "nobody has looked yet"
    a.channel.be_at_ease(NOW)
    assert 32 < sum(a.channel.at_ease(NOW) for _ in range(1000)) <= 64
    a.channel.be_at_ease(NOW)
    assert a.channel.at_ease(NOW + 0.2) is True
    assert a.channel.at_ease(NOW + 0.25) is False


@pytest.mark.parametrize("happened", ["nothing sent", "replaced", "asking", "closed"])
def test_no_packet_goes_out_unasked_where_somebody_must_look(happened: str) -> None:
    a, _ = ends()
    if happened != "nothing sent":
        a.messages(1)
    a.channel.be_at_ease(NOW)
    match happened:
        case "replaced":
            a.channel.be_careful()
        case "asking":
            a.channel.ask(NOW)
            assert not a.channel.at_ease(NOW)
            a.channel.be_at_ease(NOW)
        case "closed":
            a.channel.close()
    assert not a.channel.at_ease(NOW)


def test_closing_wipes_the_keys_and_reports_what_is_open() -> None:
    a, b = ends()
    a.hear(b.messages(1))
    a.messages(3)
    a.channel.close()
    assert a.channel.session.closed
    assert a.emitted == [Report(range(3), Fate.UNCONFIRMED, "b")]
    assert a.channel.due == NEVER
    with pytest.raises(StateError):
        a.messages(1)
