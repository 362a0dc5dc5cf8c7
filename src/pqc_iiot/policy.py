"""What this device allows. Policy is data: a frozen value, stored beside the keys."""

from __future__ import annotations

import dataclasses
import enum
from dataclasses import dataclass

from . import cose
from .errors import InvalidInputError, PolicyError, PqcIiotError, StateTamperedError
from .providers import Custody
from .suites import SUITE_POLICIES, Suite

MAX_PAYLOAD = 1 << 24
"""Bytes; no policy allows longer messages."""


class Trust(enum.Enum):
    """How a key becomes trusted."""

    STRICT = "strict"
    """Only by approval; an empty allow-list denies everyone."""
    TOFU = "tofu"
    """The first key under a name is pinned, loudly; a changed one is always refused."""


class SessionUse(enum.Enum):
    """Whether messages to peers go through sessions."""

    AUTO = "auto"
    """Through a session, which is set up by itself; as frames of their own until there is
    one, where a peer has none, and where a broker is to retain them."""
    ALWAYS = "always"
    """Through a session or not at all."""
    NEVER = "never"
    """Each as a frame of its own; peers' handshakes are refused."""


@dataclass(frozen=True, slots=True)
class Policy:
    """One device's policy. `InvalidInputError` for values out of range.

    `max_payload` is in bytes, `max_pending` in bundles, `max_pinned` in key sets that TOFU
    trusts by itself (more wait for approval), `sequence_block` in numbers reserved at once;
    `rotation_overlap` is how many sequence numbers a peer's old keys are still accepted for
    after the first frame under its new ones. `session_window` is how far behind the newest
    packet of a session another one may come (0: strict order). Inbox and outbox take no more at
    so many messages or bytes; a frame that has waited in the outbox for `outbox_age` seconds is
    given up. With `audit_required` nothing is sealed or opened while the audit log cannot be
    written; without it protection goes on, and the log says later what it has missed.
    """

    trust: Trust = Trust.STRICT
    suites: str = "all"
    min_custody: Custody = Custody.SOFTWARE
    max_payload: int = 1 << 20
    max_pending: int = 64
    max_pinned: int = 1024
    sequence_block: int = 1024
    rotation_overlap: int = 1024
    sessions: SessionUse = SessionUse.AUTO
    session_window: int = 0
    inbox_messages: int = 100_000
    inbox_bytes: int = 64 << 20
    outbox_messages: int = 100_000
    outbox_bytes: int = 64 << 20
    outbox_age: int = 7 * 24 * 3600
    audit_required: bool = False

    def __post_init__(self) -> None:
        for name, kind in (
            ("trust", Trust),
            ("suites", str),
            ("min_custody", Custody),
            ("sessions", SessionUse),
            ("audit_required", bool),
        ):
            if not isinstance(getattr(self, name), kind):
                raise InvalidInputError(f"{name} must be a {kind.__name__}")
        if self.suites not in SUITE_POLICIES:
            raise InvalidInputError(
                f"{self.suites!r} is no suite policy", hint=f"known: {', '.join(SUITE_POLICIES)}"
            )
        for name, low, high in (
            ("max_payload", 1, MAX_PAYLOAD),
            ("max_pending", 1, 4096),
            ("max_pinned", 1, 1 << 24),
            ("sequence_block", 1, 1 << 20),
            ("rotation_overlap", 0, 1 << 32),
            ("session_window", 0, 4096),
            ("inbox_messages", 1, 1 << 24),
            ("inbox_bytes", 1, 1 << 36),
            ("outbox_messages", 1, 1 << 24),
            ("outbox_bytes", 1, 1 << 36),
            ("outbox_age", 1, 1 << 32),
        ):
            value = getattr(self, name)
            if type(value) is not int or not low <= value <= high:
                raise InvalidInputError(f"{name} must be from {low} to {high}")

    def require_suite(self, suite: Suite) -> None:
        """Raises `PolicyError` where this device must not use `suite`."""
        if suite.id not in SUITE_POLICIES[self.suites]:
            allowed = ", ".join(map(str, sorted(SUITE_POLICIES[self.suites])))
            raise PolicyError(
                f"suite {suite.id} ({suite.name}) is not allowed by policy {self.suites!r}",
                hint=f"allowed suites: {allowed}",
            )

    def encode(self) -> bytes:
        """For the store."""
        values = dataclasses.asdict(self)
        values.update(
            trust=self.trust.value,
            min_custody=int(self.min_custody),
            sessions=self.sessions.value,
            audit_required=int(self.audit_required),
        )
        return cose.dumps(values)

    @classmethod
    def decode(cls, data: bytes) -> Policy:
        """Undoes `encode`; `StateTamperedError` for anything else."""
        match cose.loads(data, 1024, "the policy", StateTamperedError):
            case {"trust": str(trust), "min_custody": int(custody), **rest}:
                # One that an older version has stored lacks what is new: the default then.
                required = rest.pop("audit_required", 0)
                if required not in (0, 1):
                    raise StateTamperedError("the policy has another shape")
                rest["audit_required"] = bool(required)
                try:
                    # A policy that was stored by an older version has no word on sessions.
                    rest["sessions"] = SessionUse(rest.get("sessions", "auto"))
                    return cls(trust=Trust(trust), min_custody=Custody(custody), **rest)  # type: ignore[arg-type]
                except (TypeError, ValueError, PqcIiotError) as cause:
                    raise StateTamperedError("the policy has another shape") from cause
        raise StateTamperedError("the policy has another shape")
