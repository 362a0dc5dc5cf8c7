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
    """A bundle that this device's keys signed and this device did not make."""

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
    """A security provider (software, TPM, PKCS#11) could not do what was asked."""

    code = "provider"


class WrongPassphraseError(ProviderError):
    """The key file does not open with this passphrase."""

    code = "wrong_passphrase"


class SelfTestError(ProviderError):
    """A power-on self-test failed: every operation is refused from now on."""

    code = "self_test_failed"
