"""Values on the command line, checked before anything is opened."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import typer

from ..audit import Severity
from ..bundle import check_name, parse_fingerprint
from ..errors import InvalidInputError, PqcIiotError
from ..providers import Custody
from ..suites import get_suite

_T = TypeVar("_T")


def checked(check: Callable[[str], _T]) -> Callable[[str], _T]:
    """A parser for Typer: what the library refuses is a usage error."""

    def parse(text: str) -> _T:
        try:
            return check(text)
        except PqcIiotError as error:
            hint = f" ({error.hint})" if error.hint else ""
            raise typer.BadParameter(f"{error}{hint}") from error

    return parse


def suite_id(text: str) -> int:
    """The number of a suite that exists."""
    if not text.isdecimal() or len(text) > 3:
        raise InvalidInputError(f"{text[:80]!r} is no suite", hint="a number, such as 1")
    return get_suite(int(text)).id


def custody(text: str) -> Custody:
    """A custody by its name."""
    try:
        return Custody[text.upper()]
    except KeyError:
        known = ", ".join(each.name.lower() for each in Custody)
        raise InvalidInputError(f"{text[:80]!r} is no custody", hint=f"known: {known}") from None


def severity_label(text: str) -> Severity:
    """A severity by its name."""
    try:
        return Severity[text.upper()]
    except KeyError:
        known = ", ".join(each.label for each in Severity)
        raise InvalidInputError(f"{text[:80]!r} is no severity", hint=f"known: {known}") from None


def peer_words(words: Sequence[str]) -> str:
    """A peer's name, or its fingerprint even where its groups came as words of their own."""
    together = "".join(words)
    try:
        return parse_fingerprint(together).hex()
    except InvalidInputError as error:
        if len(words) == 1:
            return check_name(together)
        raise error
