"""The error tree: stable codes, each once, and an event for each that is about security."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pqc_iiot import errors
from pqc_iiot.audit import BY_REASON
from pqc_iiot.errors import PqcIiotError


def tree(root: type[PqcIiotError]) -> Iterator[type[PqcIiotError]]:
    yield root
    for child in root.__subclasses__():
        yield from tree(child)


ALL = list(dict.fromkeys(e for e in tree(PqcIiotError) if e.__module__ == errors.__name__))


def test_codes_are_stable() -> None:
    """Programs and rules of others depend on them: a change here breaks them."""
    codes = {error.code: error.exit_code for error in ALL}
    assert (
        codes.items()
        >= {
            "error": 1,
            "invalid_input": 2,
            "transport": 1,
            "broker_refused": 1,
            "queue_full": 1,
            "invalid_frame": 3,
            "wrong_recipient": 3,
            "invalid_bundle": 3,
            "authentication_failed": 3,
            "unknown_peer": 3,
            "revoked_peer": 3,
            "replay": 3,
            "duplicate": 3,
            "policy": 3,
            "peer_key_changed": 3,
            "state": 4,
            "state_locked": 4,
            "unsafe_permissions": 4,
            "state_tampered": 4,
            "state_rollback": 4,
            "provider": 1,
            "wrong_passphrase": 1,
            "self_test_failed": 1,
            "missing_extra": 1,
            "provider_unavailable": 1,
            "provider_busy": 1,
            "provider_auth_failed": 1,
            "provider_locked_out": 1,
            "provider_policy_mismatch": 1,
            "provider_integrity_failed": 1,
            "provider_invalid_input": 1,
            "key_not_found": 1,
            "not_supported": 1,
            "forked_process": 1,
            "custody_too_low": 3,
            "counter_rollback": 4,
        }.items()
    )
    assert len(codes) == len(ALL)
    assert set(codes.values()) == {1, 2, 3, 4}


@pytest.mark.parametrize("error", ALL, ids=lambda error: error.code)
def test_security_errors_leave_an_event(error: type[PqcIiotError]) -> None:
    silent = {"error", "invalid_input", "transport", "provider", "broker_refused", "queue_full"}
    silent |= {"missing_extra", "provider_unavailable", "provider_busy", "not_supported"}
    silent |= {"provider_invalid_input", "forked_process"}
    silent.add("state_locked")  # the log belongs to the process that has the lock
    assert (error.code in BY_REASON) == (error.code not in silent)


def test_what_an_error_carries() -> None:
    error = errors.ReplayError("what happened", hint="what to do", peer="0" * 64)
    assert (str(error), error.hint, error.peer) == ("what happened", "what to do", "0" * 64)
    assert (errors.StateError("x").hint, errors.StateError("x").peer) == ("", "")
    assert isinstance(error, PqcIiotError)
    assert errors.LockedOutError("x", native="0x921").native == "0x921"
    with pytest.raises(errors.ReplayError):
        raise errors.DuplicateError("a kind of it")
