"""The error tree: one class per meaning, one stable code per class.

The code is the same in exceptions, audit events and metrics. The hint says what
to do next. Neither ever holds a secret or a payload.
"""

from __future__ import annotations

from typing import ClassVar


class PqcIiotError(Exception):
    """Root of every error this package raises on purpose.

    `code` is stable and machine-readable, `hint` is one sentence (or command) for a
    person, `exit_code` is what the command line returns: 1 failure, 2 usage, 3 security
    refusal, 4 state locked or unsafe. `peer` is a peer's fingerprint (64 hex
    digits), where one is known.
    """

    code: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str = "", peer: str = "") -> None:
        super().__init__(message)
        self.hint = hint
        self.peer = peer


class InvalidInputError(PqcIiotError):
    """An argument, configuration or key file of ours that cannot be used as given."""

    code = "invalid_input"
    exit_code = 2


class TransportError(PqcIiotError):
    """The network or the broker failed; nothing was refused for security reasons."""

    code = "transport"


class BrokerRefusedError(TransportError):
    """The broker is there and does not take this message."""

    code = "broker_refused"


class QueueFullError(PqcIiotError):
    """Inbox or outbox have reached a limit of policy; nothing was put in."""

    code = "queue_full"


class InvalidFrameError(PqcIiotError):
    """Bytes from outside that are no frame of this protocol, or not one for us."""

    code = "invalid_frame"
    exit_code = 3


class WrongRecipientError(InvalidFrameError):
    """A well-formed frame whose recipient key id is not one of this device's."""

    code = "wrong_recipient"


class InvalidBundleError(InvalidFrameError):
    """Bytes from outside that are no bundle, or one whose signature does not verify."""

    code = "invalid_bundle"


class AuthenticationError(PqcIiotError):
    """Decryption or signature verification failed; deliberately not said which."""

    code = "authentication_failed"
    exit_code = 3


class UnknownPeerError(PqcIiotError):
    """The sender or recipient is not on the allow-list."""

    code = "unknown_peer"
    exit_code = 3


class RevokedPeerError(PqcIiotError):
    """The sender or recipient was revoked."""

    code = "revoked_peer"
    exit_code = 3


class ReplayError(PqcIiotError):
    """A sequence number at or below the last one seen, in a frame not seen before."""

    code = "replay"
    exit_code = 3


class DuplicateError(ReplayError):
    """The identical frame again: a transport's redelivery or a retained message."""

    code = "duplicate"


class PolicyError(PqcIiotError):
    """This device's policy forbids what was asked (suite, custody, trust)."""

    code = "policy"
    exit_code = 3


class PeerKeyChangedError(PolicyError):
    """A known name with other keys: never accepted, under any policy."""

    code = "peer_key_changed"


class ClonedIdentityError(PqcIiotError):
    """A bundle or a record of presence that this device's keys signed and this device did
    not make: a copy of them is in use."""

    code = "cloned_identity"
    exit_code = 3


class StateError(PqcIiotError):
    """The state folder is missing, damaged, older than it must be, or not writable."""

    code = "state"
    exit_code = 4


class StateLockedError(StateError):
    """Another process owns the state folder."""

    code = "state_locked"


class UnsafePermissionsError(StateError):
    """A file or folder with secrets can be read or written by others."""

    code = "unsafe_permissions"


class StateTamperedError(StateError):
    """A row or file of the state folder fails its authentication."""

    code = "state_tampered"


class StateRollbackError(StateError):
    """The state is older than what this device has already used."""

    code = "state_rollback"


class ProviderError(PqcIiotError):
    """A security provider (software, TPM, PKCS#11) could not do what was asked.

    `native` is the hardware's own code for it, such as `0x921` or `CKR_PIN_LOCKED`.
    """

    code = "provider"

    def __init__(self, message: str, *, hint: str = "", peer: str = "", native: str = "") -> None:
        super().__init__(message, hint=hint, peer=peer)
        self.native = native


class WrongPassphraseError(ProviderError):
    """The key file does not open with this passphrase."""

    code = "wrong_passphrase"


class SelfTestError(ProviderError):
    """A power-on self-test failed: every operation is refused from now on."""

    code = "self_test_failed"


class MissingExtraError(ProviderError):
    """The provider's own libraries are not installed."""

    code = "missing_extra"


class UnavailableError(ProviderError):
    """The device, its service or the token is not there now; trying later may help."""

    code = "provider_unavailable"


class BusyError(ProviderError):
    """The device is at work or out of room for now; trying again at once may help."""

    code = "provider_busy"


class AuthFailedError(ProviderError):
    """The PIN or authorisation given is not the one; never tried twice by us."""

    code = "provider_auth_failed"


class LockedOutError(ProviderError):
    """The device refuses every authorisation until it is unlocked."""

    code = "provider_locked_out"


class PolicyMismatchError(ProviderError):
    """The machine is not in the state (PCRs) that the keys were sealed to."""

    code = "provider_policy_mismatch"


class IntegrityFailedError(ProviderError):
    """A stored blob is not this device's, or was changed."""

    code = "provider_integrity_failed"


class ProviderInputError(ProviderError):
    """The device refused an argument: a length, a point, a handle."""

    code = "provider_invalid_input"


class KeyNotFoundError(ProviderError):
    """A key, token or counter that this device's state names is not in the hardware."""

    code = "key_not_found"


class NotSupportedError(ProviderError):
    """The hardware cannot do this; `provider test` shows what it can."""

    code = "not_supported"


class CustodyTooLowError(ProviderError, PolicyError):
    """The keys cannot be held, or are not held, in the custody that is demanded."""

    code = "custody_too_low"


class CounterRollbackError(ProviderError, StateRollbackError):
    """The hardware counter says that the state is an older copy, or the counter is gone
    back or another one."""

    code = "counter_rollback"


class ForkedProcessError(ProviderError):
    """This process is a fork of the one that opened the hardware."""

    code = "forked_process"
