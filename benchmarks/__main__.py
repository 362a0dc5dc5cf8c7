"""Everything that the README states, in one run: `python -m benchmarks [PART...] [--json]`,
PART being the last word of a name below."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from pqc_iiot import bench

from . import (
    audit,
    audit_sinks,
    durability,
    hardware,
    peers,
    session,
    session_flood,
    session_mqtt,
    startup,
)

PARTS = (
    ("the envelope", bench.measure_envelope),
    ("other wheels", bench.measure_wheels),
    ("durable receive", bench.measure_durable),
    ("start-up", startup.measure_startup),
    ("100,000 peers", peers.measure_peers),
    ("sessions", session.measure_sessions),
    ("a flood at sessions", session_flood.measure_flood),
    ("sessions over MQTT", session_mqtt.measure_mqtt),
    ("inbox and outbox", durability.measure_durability),
    ("the audit trail", audit.measure_audit),
    ("a flood of refusals", audit_sinks.measure_sinks),
    ("hardware", hardware.measure_hardware),
)


def main(arguments: list[str]) -> int:
    """Runs every part on one core and prints one table, or JSON lines."""
    wanted = [word for word in arguments if not word.startswith("-")]
    rows: list[bench.Row] = []
    with bench.pinned() as core, tempfile.TemporaryDirectory(prefix="pqc-iiot-bench-") as folder:
        for name, part in PARTS:
            if wanted and name.split()[-1] not in wanted:
                continue
            bench.progress(name)
            rows += part(Path(folder, part.__name__))
        disturbance = bench.noise()
        bench.progress("")
    return bench.report(rows, disturbance, core, json="--json" in arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
