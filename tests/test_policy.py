"""What a device allows, and that a stored policy is believed only as it was stored."""

from __future__ import annotations

from pathlib import Path

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices import Pair, events, make
from pqc_iiot import InvalidInputError, Node, Policy, PolicyError, PqcIiotError, Trust
from pqc_iiot.cose import dumps
from pqc_iiot.errors import StateTamperedError
from pqc_iiot.providers import Custody
from pqc_iiot.suites import SUITES, get_suite

policies = st.builds(
    Policy,
    trust=st.sampled_from(Trust),
    suites=st.sampled_from(["all", "hybrid", "cnsa2"]),
    min_custody=st.sampled_from(Custody),
    max_payload=st.integers(1, 1 << 24),
    max_pending=st.integers(1, 4096),
    sequence_block=st.integers(1, 1 << 20),
    rotation_overlap=st.integers(0, 1 << 32),
    inbox_messages=st.integers(1, 1 << 24),
    inbox_bytes=st.integers(1, 1 << 36),
    outbox_messages=st.integers(1, 1 << 24),
    outbox_bytes=st.integers(1, 1 << 36),
    outbox_age=st.integers(1, 1 << 32),
)


@given(policies)
def test_what_is_stored_is_read_again(policy: Policy) -> None:
    assert Policy.decode(policy.encode()) == policy


def test_one_that_an_older_version_has_stored_gets_the_limits_of_the_queues() -> None:
    policy = Policy(max_pending=9)
    values = cbor2.loads(policy.encode())
    older = {name: value for name, value in values.items() if "box" not in name}
    assert len(values) - len(older) == 5
    assert Policy.decode(dumps(older)) == policy


def test_the_default_is_strict() -> None:
    assert Policy().trust is Trust.STRICT


@pytest.mark.parametrize(
    "values",
    [
        {"suites": "none"},
        {"suites": ""},
        {"max_payload": 0},
        {"max_payload": (1 << 24) + 1},
        {"max_pending": 0},
        {"max_pending": 4097},
        {"sequence_block": 0},
        {"sequence_block": 1 << 21},
        {"rotation_overlap": -1},
        {"rotation_overlap": (1 << 32) + 1},
        {"inbox_messages": 0},
        {"inbox_bytes": 0},
        {"outbox_messages": (1 << 24) + 1},
        {"outbox_bytes": (1 << 36) + 1},
        {"outbox_age": 0},
        {"max_payload": 1.5},
        {"max_payload": "1"},
        {"max_payload": None},
        {"trust": "tofu"},
        {"min_custody": 1},
        {"suites": ["all"]},
    ],
    ids=repr,
)
def test_values_that_mean_nothing(values: dict[str, object]) -> None:
    with pytest.raises(InvalidInputError):
        Policy(**values)  # type: ignore[arg-type]


@pytest.mark.parametrize("allowed", [{"all": set(SUITES)}, {"hybrid": {1, 2, 6}}, {"cnsa2": {5}}])
def test_suites(allowed: dict[str, set[int]]) -> None:
    ((name, suites),) = allowed.items()
    for suite in SUITES.values():
        if suite.id in suites:
            Policy(suites=name).require_suite(suite)
        else:
            with pytest.raises(PolicyError, match=f"suite {suite.id} ") as caught:
                Policy(suites=name).require_suite(suite)
            assert str(min(suites)) in caught.value.hint


@given(st.data())
def test_a_bent_policy_is_tampering(data: st.DataObject) -> None:
    encoded = bytearray(Policy().encode())
    for _ in range(data.draw(st.integers(1, 3))):
        encoded[data.draw(st.integers(0, len(encoded) - 1))] = data.draw(st.integers(0, 255))
    try:
        policy = Policy.decode(bytes(encoded))
    except StateTamperedError:
        return
    assert policy.encode() == bytes(encoded)


@pytest.mark.parametrize(
    "value",
    [
        {},
        [],
        1,
        {"trust": "strict", "min_custody": 1},
        {7: 8},
        {"trust": "maybe", "min_custody": 1},
        {"trust": "strict", "min_custody": 9},
        {"trust": "strict", "min_custody": 1, "unknown": 1},
    ],
    ids=repr,
)
def test_other_shapes(value: object) -> None:
    try:
        policy = Policy.decode(dumps(value))
    except StateTamperedError:
        return
    assert policy == Policy()  # what is missing has its default


def test_a_change_is_durable_and_heard(pair: Pair) -> None:
    pair.plc.policy = Policy(suites="hybrid", max_payload=99)
    changes = [event.detail for event in events(pair.plc) if event.event == "policy_changed"]
    assert [(c["setting"], c["old"], c["new"]) for c in changes] == [
        ("suites", "all", "hybrid"),
        ("max_payload", str(1 << 20), "99"),
    ]
    pair.reopen()
    assert pair.plc.policy == Policy(suites="hybrid", max_payload=99)


def test_keys_below_the_custody_that_policy_demands(tmp_path: Path) -> None:
    sealed = Policy(min_custody=Custody.SEALED)
    with pytest.raises(PolicyError) as caught:
        make(tmp_path, "never", policy=sealed)
    assert "SOFTWARE" in caught.value.hint
    with make(tmp_path, "plc") as plc:
        with pytest.raises(PolicyError, match="SOFTWARE"):
            plc.policy = sealed
        assert plc.policy == Policy()
    with Node.open(tmp_path / "plc") as plc:
        assert plc.policy == Policy()


def test_no_device_in_a_suite_that_policy_forbids(tmp_path: Path) -> None:
    with pytest.raises(PqcIiotError):
        make(tmp_path, "plc", 1, Policy(suites="cnsa2"))
    assert not (tmp_path / "plc").exists()
    assert get_suite(5).id == 5
