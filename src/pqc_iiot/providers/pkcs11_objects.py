"""Keys as objects of a token: made so that they cannot leave it, and checked that they are.

Objects of one key share a random id; their label says whose they are to people.
"""

from __future__ import annotations

import contextlib
import enum
import itertools
import os
from collections.abc import Mapping
from typing import TypeVar

from pkcs11 import Attribute, GCMParams, KeyType, MechanismFlag, Object
from pkcs11.exceptions import PKCS11Error
from pkcs11.mechanisms import Mechanism

from ..errors import CustodyTooLowError
from .pkcs11_calls import wipe
from .pkcs11_errors import is_lost_for_sure
from .pkcs11_token import Live, handle_of
from .pkcs11_uri import Numbers

ID_SIZE = 16
LABEL = "pqc-iiot"

_KEPT = {Attribute.PRIVATE: True, Attribute.SENSITIVE: True, Attribute.EXTRACTABLE: False}
"""What every private and secret key is made with."""

READABLE = {Attribute.SENSITIVE: False, Attribute.EXTRACTABLE: True, Attribute.TOKEN: False}
"""A shared secret's, which is read at once and removed."""

_WRAPPINGS = (
    (Mechanism.AES_KEY_WRAP, None),
    (Mechanism.AES_KEY_WRAP_PAD, None),
    (Mechanism.AES_KEY_WRAP_KWP, None),
    (Mechanism.AES_CBC_PAD, bytes(16)),
    (Mechanism.AES_CBC, bytes(16)),
    (Mechanism.AES_ECB, None),
    (Mechanism.AES_GCM, GCMParams(nonce=bytes(12), aad=b"", tag_bits=128)),
)

P256 = bytes.fromhex("06082a8648ce3d030107")
"""Its object identifier, 1.2.840.10045.3.1.7, in DER."""

_Enum = TypeVar("_Enum", bound=enum.IntEnum)


def member(kind: type[_Enum], number: int) -> _Enum:
    """A number as python-pkcs11 takes it: a vendor's becomes a member of its enumeration."""
    try:
        return kind(number)
    except ValueError:
        made = int.__new__(kind, number)
        made._name_, made._value_ = f"VENDOR_{number:X}", number
        kind._value2member_map_[number] = made
        return made


def make_pair(
    live: Live,
    numbers: Numbers,
    use: MechanismFlag,
    *,
    public: Mapping[Attribute, object] | None = None,
    private: Mapping[Attribute, object] | None = None,
    store: bool = True,
) -> tuple[Object, Object, bytes]:
    """A new key pair: public key, private key, and their id."""
    key_id = os.urandom(ID_SIZE)
    template: dict[Attribute, object] = dict(public or {})
    if numbers.parameter_set is not None:
        template[Attribute.PARAMETER_SET] = numbers.parameter_set
    public_key, private_key = live.session.generate_keypair(
        member(KeyType, numbers.key_type),
        id=key_id,
        label=LABEL,
        store=store,
        capabilities=use,
        mechanism=member(Mechanism, numbers.generate),
        public_template=template,
        private_template={**_KEPT, **(private or {})},
    )
    return public_key, private_key, key_id


def make_aes_key(live: Live) -> tuple[Object, bytes]:
    """A new AES-256 key that encrypts, decrypts and does nothing else, and its id."""
    key_id = os.urandom(ID_SIZE)
    key = live.session.generate_key(
        KeyType.AES,
        256,
        id=key_id,
        label=LABEL,
        store=True,
        capabilities=MechanismFlag.ENCRYPT | MechanismFlag.DECRYPT,
        template=_KEPT,
    )
    return key, key_id


def probe_kept(key: Object) -> str:
    """Tries to get a key out. What was read back and refused, in a few words.

    `CustodyTooLowError` where the token would give it away.
    """
    said = {name: key[getattr(Attribute, name)] for name in ("SENSITIVE", "EXTRACTABLE")}
    refusals = []
    for attribute in (Attribute.VALUE, Attribute.SEED):
        try:
            value = key[attribute]
        except PKCS11Error as refusal:
            refusals.append(f"{attribute.name} {type(refusal).__name__}")
        else:
            # Not an empty one: some tokens say so where there is nothing to read.
            if value:
                said["EXTRACTABLE"] = True
    if not said["SENSITIVE"] or said["EXTRACTABLE"]:
        raise CustodyTooLowError(
            "the token made a key that it would give away",
            hint="it does not honour CKA_SENSITIVE and CKA_EXTRACTABLE: use another token",
        )
    return f"SENSITIVE, not EXTRACTABLE; reading it refused ({', '.join(refusals)})"


def probe_wrapping(live: Live) -> str:
    """Tries to wrap keys that are not EXTRACTABLE with a key that this program knows, as
    whoever knows the PIN may. The mechanism that did it, or "" where each was refused.

    CKA_EXTRACTABLE forbids it (PKCS #11 section 4.9.1, C_WrapKey), but NSS does not care.
    """
    there = live.mechanisms()
    made = [_make_session_key(live, MechanismFlag.SIGN)]
    try:
        try:
            made.append(_make_session_key(live, MechanismFlag.WRAP | MechanismFlag.UNWRAP))
        except PKCS11Error as refusal:
            return _refused(refusal)
        if Mechanism.EC_KEY_PAIR_GEN in there:
            numbers = Numbers(KeyType.EC, Mechanism.EC_KEY_PAIR_GEN, 0)
            public, private, _ = make_pair(
                live,
                numbers,
                MechanismFlag.SIGN | MechanismFlag.VERIFY,
                public={Attribute.EC_PARAMS: P256},
                store=False,
            )
            made += [public, private]
        for key, (mechanism, parameter) in itertools.product((made[0], made[-1]), _WRAPPINGS):
            if mechanism in there:
                try:
                    made[1].wrap_key(key, mechanism, parameter)  # type: ignore[attr-defined]
                except PKCS11Error as refusal:
                    _refused(refusal)
                else:
                    return mechanism.name
        return ""
    finally:
        for key in made:
            key.destroy()


def _make_session_key(live: Live, use: MechanismFlag) -> Object:
    return live.session.generate_key(KeyType.AES, 256, capabilities=use, template=_KEPT)


def _refused(error: PKCS11Error) -> str:
    """A refusal, unless the token went away: that would be no evidence of anything."""
    if is_lost_for_sure(error):
        raise error
    return ""


def read_secret(live: Live, secret: Object, into: bytearray) -> None:
    """Moves a shared secret that was just made out of the token; it is removed there.

    `into` has its length, and is wiped where this raises.
    """
    try:
        live.calls.read_value(live.handle, handle_of(secret), into)
    finally:
        try:
            secret.destroy()
        except BaseException:
            wipe(into)
            raise


def destroy(live: Live, key_id: bytes) -> None:
    """Removes every object with this id; idempotent."""
    for found in live.search({Attribute.ID: key_id}):
        with contextlib.suppress(PKCS11Error):
            found.destroy()
