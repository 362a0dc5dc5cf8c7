"""Live readings of this machine, from /proc and /sys (Linux; see proc(5) and sysfs(5))."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

Reading = dict[str, "int | float | dict[str, int]"]

MAX_SENSORS = 4
"""Thermometers and network interfaces in one reading at most."""


def read_all(root: Path = Path("/")) -> dict[str, Reading]:
    """The readings that this machine offers, by name; `root` is where its /proc and /sys are."""
    sources: dict[str, Callable[[Path], Reading]] = {
        "load": read_load,
        "memory": read_memory,
        "temperature": read_temperatures,
        "network": read_network,
        "uptime": read_uptime,
    }
    found = {}
    for name, read in sources.items():
        try:
            reading = read(root)
        except (OSError, ValueError, LookupError):  # a container may hide it, a kernel lack it
            continue
        if reading:
            found[name] = reading
    return found


def read_load(root: Path) -> Reading:
    """Processes that run or wait for the CPU or a disk: averages over 1, 5 and 15 minutes."""
    one, five, fifteen = (root / "proc/loadavg").read_text().split()[:3]
    return {"load_1": float(one), "load_5": float(five), "load_15": float(fifteen)}


def read_memory(root: Path) -> Reading:
    """Memory in KiB: in all, and available without swapping."""
    lines = (root / "proc/meminfo").read_text().splitlines()
    values = {name: rest.split()[0] for name, _, rest in (line.partition(":") for line in lines)}
    return {
        "total_kib": int(values["MemTotal"]),
        "available_kib": int(values["MemAvailable"]),
    }


def read_temperatures(root: Path) -> Reading:
    """Degrees Celsius by sensor; empty on a machine without any (most virtual ones)."""
    found: Reading = {}
    for zone in sorted((root / "sys/class/thermal").glob("thermal_zone*")):
        _add_temperature(found, zone / "type", zone / "temp")
    for chip in sorted((root / "sys/class/hwmon").glob("hwmon*")):
        for value in sorted(chip.glob("temp*_input")):
            _add_temperature(found, chip / "name", value)
    return dict(list(found.items())[:MAX_SENSORS])


def read_network(root: Path) -> Reading:
    """Bytes received and sent since start, for the interfaces that received most."""
    interfaces: list[tuple[int, int, str]] = []
    for line in (root / "proc/net/dev").read_text().splitlines()[2:]:
        name, _, rest = line.partition(":")
        received, *_, sent = map(int, rest.split()[:9])
        if received or sent:
            interfaces.append((received, sent, name.strip()))
    interfaces.sort(reverse=True)
    return {
        name: {"rx_bytes": received, "tx_bytes": sent}
        for received, sent, name in interfaces[:MAX_SENSORS]
    }


def read_uptime(root: Path) -> Reading:
    """Seconds since start."""
    return {"seconds": float((root / "proc/uptime").read_text().split()[0])}


def _add_temperature(found: Reading, name: Path, value: Path) -> None:
    try:
        sensor = name.read_text().strip()
        degrees = int(value.read_text()) / 1000
    except (OSError, ValueError):  # some sensors answer only while their device is awake
        return
    label = sensor if sensor not in found else f"{sensor}_{value.parent.name}_{value.stem}"
    found[label] = degrees
