"""Readings: from files as Linux has them, and from those that it may have instead."""

from __future__ import annotations

from pathlib import Path

import pytest

from pqc_iiot.demo import readings

NETWORK = """\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo: 100 1 0 0 0 0 0 0 100 1 0 0 0 0 0 0
  eth0:2000 9 0 0 0 0 0 0 300 4 0 0 0 0 0 0
 wlan0:   0 0 0 0 0 0 0 0   0 0 0 0 0 0 0 0
"""  # noqa: E501 - as in /proc


def put(root: Path, files: dict[str, str]) -> None:
    """Lays files below `root`."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


def test_this_machine_has_readings() -> None:
    found = readings.read_all()
    assert {"load", "memory", "uptime"} <= set(found)
    assert 0 < found["memory"]["available_kib"] <= found["memory"]["total_kib"]  # type: ignore[operator]


def test_all_readings(tmp_path: Path) -> None:
    put(
        tmp_path,
        {
            "proc/loadavg": "0.20 0.18 0.12 1/80 11206\n",
            "proc/meminfo": "MemTotal: 8000 kB\nMemAvailable: 4000 kB\nHugePages_Free: 0\n",
            "proc/net/dev": NETWORK,
            "proc/uptime": "350735.47 234388.90\n",
            "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
            "sys/class/thermal/thermal_zone0/temp": "48312\n",
            "sys/class/hwmon/hwmon1/name": "nvme\n",
            "sys/class/hwmon/hwmon1/temp1_input": "-2500\n",
            "sys/class/hwmon/hwmon1/temp2_input": "31000\n",
        },
    )
    assert readings.read_all(tmp_path) == {
        "load": {"load_1": 0.2, "load_5": 0.18, "load_15": 0.12},
        "memory": {"total_kib": 8000, "available_kib": 4000},
        "temperature": {"cpu-thermal": 48.312, "nvme": -2.5, "nvme_hwmon1_temp2_input": 31.0},
        "network": {
            "eth0": {"rx_bytes": 2000, "tx_bytes": 300},
            "lo": {"rx_bytes": 100, "tx_bytes": 100},
        },
        "uptime": {"seconds": 350735.47},
    }


@pytest.mark.parametrize("content", ["", "\n", "none\n", "MemTotal:\n", "a: b\n\n", "x\n:\n::\n"])
def test_files_of_another_form_are_left_out(tmp_path: Path, content: str) -> None:
    names = ("proc/loadavg", "proc/meminfo", "proc/net/dev", "proc/uptime")
    put(tmp_path, dict.fromkeys(names, content))
    assert not readings.read_all(tmp_path)


def test_a_machine_without_any_has_none(tmp_path: Path) -> None:
    assert readings.read_all(tmp_path) == {}


def test_a_sleeping_thermometer_hides_no_other(tmp_path: Path) -> None:
    put(
        tmp_path,
        {
            "sys/class/thermal/thermal_zone0/type": "wifi\n",
            "sys/class/thermal/thermal_zone0/temp": "",
            "sys/class/thermal/thermal_zone1/type": "cpu\n",
            "sys/class/thermal/thermal_zone1/temp": "50000\n",
        },
    )
    assert readings.read_all(tmp_path) == {"temperature": {"cpu": 50.0}}


def test_readings_stay_small(tmp_path: Path) -> None:
    lines = "".join(f"veth{n}: {n} 0 0 0 0 0 0 0 {n} 0 0 0 0 0 0 0\n" for n in range(1, 100))
    files = {"proc/net/dev": f"head\nhead\n{lines}"}
    for n in range(100):
        files[f"sys/class/thermal/thermal_zone{n}/type"] = f"zone{n}"
        files[f"sys/class/thermal/thermal_zone{n}/temp"] = "1000"
    put(tmp_path, files)
    found = readings.read_all(tmp_path)
    assert list(found["network"]) == ["veth99", "veth98", "veth97", "veth96"]
    assert len(found["temperature"]) == readings.MAX_SENSORS
