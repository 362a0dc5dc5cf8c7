#!/usr/bin/env python3
"""Reads audit logs of PQC-IIoT with nothing but Python, and checks their chain.

    read_log.py audit-*.log audit.log | jq 'select(.severity == "high")'

Files are read in the order given, the oldest first, as one log; "-" is standard input. Each
record is printed as a line of JSON with the hash of its line added. Whatever does not
follow what came before it is told on standard error, and the exit code is 1.

This file has no part of PQC-IIoT in it: it was written from docs/audit.md, so that the log
can be believed without believing the program that wrote it.
"""

import hashlib
import json
import sys
from collections.abc import Iterable, Iterator

NO_HASH = "0" * 64


def read(lines: Iterable[bytes]) -> Iterator[tuple[dict[str, object], str]]:
    """Each record with what is wrong about it, or ""."""
    last: int | None = None
    expected = NO_HASH
    for raw in lines:
        line = raw.rstrip(b"\n")
        try:
            record = json.loads(line)
            seq, prev = int(record["seq"]), str(record["prev"])
        except (ValueError, KeyError, TypeError):
            yield {"line": line.decode("latin-1")[:200]}, "a line that is no record"
            continue
        problem = ""
        if last is None:
            if seq == 1 and prev != NO_HASH:
                problem = "record 1 follows something"
        elif seq != last + 1:
            problem = f"record {seq} comes after record {last}"
        elif prev != expected:
            problem = f"record {seq} does not follow the one before it, or that one was changed"
        last, expected = seq, hashlib.sha256(b"\0" + line).hexdigest()
        yield {**record, "hash": expected}, problem


def main(names: list[str]) -> int:
    """Prints the records of files; 1 if anything is wrong with them."""

    def lines() -> Iterator[bytes]:
        for name in names:
            with sys.stdin.buffer if name == "-" else open(name, "rb") as file:  # noqa: PTH123
                yield from file

    failed = False
    for record, problem in read(lines()):
        if problem:
            failed = True
            print(f"problem: {problem}", file=sys.stderr)
        if "seq" in record:
            print(json.dumps(record))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or ["-"]))
