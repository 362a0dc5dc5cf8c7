"""Texts and tables of a page: shown whatever they are, never obeyed."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import Final

_LONG: Final = ("when", "detail", "fingerprint", "value", "how", "name", "last event")
_NUMBERS: Final = ("records", "refused")


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table: the columns' names are this package's, the cells are escaped."""
    kinds = dict.fromkeys(_LONG, ' class="long"') | dict.fromkeys(_NUMBERS, ' class="number"')
    styles = [kinds.get(name, "") for name in columns]
    head = "".join(f"<th{style}>{name}</th>" for style, name in zip(styles, columns, strict=True))
    body = "".join(
        "<tr>"
        + "".join(
            f"<td{style}>{escaped(cell)}</td>" for style, cell in zip(styles, row, strict=True)
        )
        + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def escaped(text: str) -> str:
    """`text` as content of an element or a quoted attribute: shown, never obeyed."""
    shown = text if text.isprintable() else "".join(map(_visible, text))
    return html.escape(shown)


def _visible(character: str) -> str:
    return character if character.isprintable() else character.encode("unicode_escape").decode()
