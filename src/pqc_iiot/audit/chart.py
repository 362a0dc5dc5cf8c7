"""Numbers over time, drawn: as SVG for a page, as blocks for a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

MAX_BARS: Final = 120
_WIDTH, _HEIGHT, _LEFT, _BOTTOM = 960, 220, 56, 28
_BLOCKS: Final = " ▁▂▃▄▅▆▇█"
_HOUR, _DAY, _MONTH = 13, 10, 7
_NAMES: Final = {_HOUR: "hour", _DAY: "day", _MONTH: "month"}


def buckets(
    hours: Mapping[str, Counter[str]], begin: str, end: str
) -> tuple[str, dict[str, Counter[str]]]:
    """Counts per hour, day or month (which is said first) from `begin` to `end`, without a
    gap and at most `MAX_BARS` of them, the last ones. The keys begin a record's time.

    None at all where `begin` or `end` is no time: a log that was edited may say anything.
    """
    try:
        start, stop = (datetime.fromisoformat(f"{each[:13]}:00:00") for each in (begin, end))
        start = max(start, stop - timedelta(days=31 * MAX_BARS))
    except (ValueError, OverflowError):
        return _NAMES[_HOUR], {}
    span = max(stop - start, timedelta())
    length = _MONTH
    if span < timedelta(hours=MAX_BARS):
        length = _HOUR
    elif span < timedelta(days=MAX_BARS):
        length = _DAY
    filled: dict[str, Counter[str]] = {}
    step = timedelta(hours=1) if length == _HOUR else timedelta(days=1)
    start = start if length == _HOUR else start.replace(hour=0)
    for number in range((stop - start) // step + 1):
        filled.setdefault((start + number * step).isoformat()[:length], Counter())
    for hour, counts in hours.items():
        if (key := hour[:length]) in filled:
            filled[key] += counts
    last = list(filled)[-MAX_BARS:]
    return _NAMES[length], {key: filled[key] for key in last}


def bars(counts: Mapping[str, Counter[str]], kinds: Sequence[str]) -> str:
    """Stacked bars as an SVG element, styled by the classes `kind-…`, `axis` and `label`.

    The keys must be times as `buckets` makes them: they are written as they are.
    """
    highest = max((counter.total() for counter in counts.values()), default=0) or 1
    room, plot = _WIDTH - _LEFT, _HEIGHT - _BOTTOM - 12
    slot = room / max(1, len(counts))
    parts = [f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="refusals over time">']
    for fraction in (0.0, 0.5, 1.0):
        y = 12 + plot * (1 - fraction)
        parts.append(
            f'<line class="axis" x1="{_LEFT}" x2="{_WIDTH}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text class="label" x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">'
            f"{round(highest * fraction)}</text>"
        )
    labelled = range(0, len(counts), max(1, round(len(counts) / 8)))
    for index, (when, counter) in enumerate(counts.items()):
        x, y = _LEFT + index * slot, 12.0 + plot
        for kind in kinds:
            if count := counter[kind]:
                height = plot * count / highest
                y -= height
                parts.append(
                    f'<rect class="kind-{kind}" x="{x + slot * 0.1:.1f}" y="{y:.1f}"'
                    f' width="{slot * 0.8:.1f}" height="{max(height, 1.0):.1f}">'
                    f"<title>{when}: {count} {kind}</title></rect>"
                )
        if index in labelled and x < _WIDTH - 60:  # there is room for it
            label = _label(when)
            parts.append(f'<text class="label" x="{x:.1f}" y="{_HEIGHT - 6}">{label}</text>')
    return "".join([*parts, "</svg>"])


def sparkline(values: Sequence[int]) -> str:
    """One block per value, the highest one full; whatever is not zero shows."""
    highest = max(values, default=0) or 1
    return "".join(_BLOCKS[-(-value * (len(_BLOCKS) - 1) // highest)] for value in values)


def bar(value: int, highest: int, width: int = 24) -> int:
    """How long a bar is: `width` for the highest value; whatever is not zero shows."""
    return -(-value * width // max(1, highest))


def _label(when: str) -> str:
    return when[5:].replace("T", " ") + ":00" if len(when) == _HOUR else when
