"""What a peer's answers mean for messages, against a model that knows each one by itself."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pytest

from pqc_iiot.session import Fate
from pqc_iiot.session.fates import Unconfirmed


@dataclass(frozen=True)
class Sent:
    """A message whose arrival is open."""

    number: int
    token: int
    at: float


@dataclass(frozen=True)
class Answer:
    """What the peer says, and from when on it may still take its time."""

    next_expected: int
    oldest: int
    seen: int
    sent_before: float


def fate(sent: Sent, answer: Answer) -> Fate | None:
    """The rule, for one message."""
    below = answer.next_expected - sent.number
    if below <= 0:
        return None
    if below > 512:
        return Fate.UNCONFIRMED
    if answer.seen >> (below - 1) & 1:
        return Fate.CONFIRMED
    if sent.number < answer.oldest:
        return Fate.LOST
    return Fate.UNCONFIRMED if sent.at < answer.sent_before else None


def listed(reports: Iterable[tuple[range, Fate]]) -> list[tuple[int, Fate]]:
    """Reports, for each message."""
    return [(token, fate) for tokens, fate in reports for token in tokens]


def history(rng: random.Random) -> Iterator[tuple[list[Sent], Answer]]:
    """Messages and then an answer, some times over. Numbers are left out where control was
    sent, tokens where a message went elsewhere; pauses are long."""
    number, token, now = 0, rng.randrange(5), 1000.0
    for _ in range(rng.randrange(1, 5)):
        sent = []
        for _ in range(rng.randrange(5)):
            number += rng.choice((0, 0, 1, 600))
            token += rng.choice((0, 0, 1, 600))
            now += rng.choice((0, 0, 2))
            for _ in range(rng.choice((1, 2, 5, 520))):
                sent.append(Sent(number, token, now))
                number, token = number + 1, token + 1
        next_expected = rng.randint(max(0, number - rng.choice((0, 1, 9, 530))), number)
        yield (
            sent,
            Answer(
                next_expected,
                oldest=rng.randint(max(0, next_expected - 20), next_expected),
                seen=rng.choice((0, (1 << 512) - 1, rng.getrandbits(512))),
                sent_before=now - rng.randint(-1, 5),
            ),
        )


@pytest.mark.parametrize("seed", range(20))
def test_each_message_has_the_fate_that_the_peers_answers_decide(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(10):
        check(history(rng))


def check(rounds: Iterable[tuple[list[Sent], Answer]]) -> None:
    """The model says the same after each answer, and at the end."""
    unconfirmed, model = Unconfirmed(), list[Sent]()
    for sent, answer in rounds:
        for each in sent:
            unconfirmed.add(each.number, each.token, each.at)
        model += sent
        decided = [(each.token, fate(each, answer)) for each in model]
        reports = unconfirmed.take(
            answer.next_expected, answer.oldest, answer.seen, answer.sent_before
        )
        assert listed(reports) == [each for each in decided if each[1] is not None]
        model = [each for each in model if fate(each, answer) is None]
        assert bool(unconfirmed) == bool(model)
    rest = [(each.token, Fate.UNSENT) for each in model]
    assert listed(unconfirmed.clear(Fate.UNSENT)) == rest
    assert not unconfirmed
    unconfirmed.add(7, 1, 0.0)
    assert listed(unconfirmed.clear(Fate.LOST)) == [(1, Fate.LOST)]


def test_a_train_of_messages_costs_as_much_as_one_and_is_of_one_second() -> None:
    unconfirmed = Unconfirmed()
    for number in range(1000):
        unconfirmed.add(number, number, 1000 + number / 1000)
    assert unconfirmed.runs == 1
    unconfirmed.add(1000, 1000, 1001.0)
    assert unconfirmed.runs == 2


def test_a_train_goes_on_after_an_answer_to_its_beginning() -> None:
    unconfirmed = Unconfirmed()
    for number in range(100):
        unconfirmed.add(number, number, 1000.0)
    assert list(unconfirmed.take(50, 0, (1 << 50) - 1, 0.0)) == [(range(50), Fate.CONFIRMED)]
    unconfirmed.add(100, 100, 1000.5)
    assert unconfirmed.runs == 1
