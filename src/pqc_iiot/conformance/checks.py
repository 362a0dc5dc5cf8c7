"""The checks, one function each: it returns what it found, or raises `ViolationError`."""

from __future__ import annotations

import threading
from collections.abc import Callable

from .._core import KemPublicKey, Secret, SigPublicKey
from ..errors import AuthenticationError, CustodyTooLowError, PqcIiotError, ProviderError
from ..providers import Assurance, Custody, Operation
from ..providers.evidence import verify_quote
from ..suites import Suite
from .subject import Subject

MAX_HEADER, MAX_BLOB = 1024, 16384
MESSAGES = (b"", b"message", bytes(range(256)) * 256)


class ViolationError(Exception):
    """The provider does not do what the interface demands."""


Check = Callable[[Subject], str]
CHECKS: dict[str, Check] = {}


def check(function: Check) -> Check:
    """Registers a check under its function's name, in words."""
    CHECKS[function.__name__.replace("_", " ")] = function
    return function


def demand(holds: bool, what: str) -> None:
    """Raises `ViolationError` with `what` is demanded unless it holds."""
    if not holds:
        raise ViolationError(what)


def refuses(
    what: str, error: type[PqcIiotError], call: Callable[..., object], *arguments: object
) -> None:
    """Demands that `call(*arguments)` raises `error`: neither nothing nor anything else."""
    try:
        call(*arguments)
    except error:
        return
    except Exception as other:
        raise ViolationError(
            f"{what} raises {type(other).__name__}, not {error.__name__}: {other}"
        ) from other
    raise ViolationError(f"{what} is accepted")


def flipped(data: bytes, at: int) -> bytes:
    """The same bytes with one bit changed."""
    at %= len(data)
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


@check
def claims_have_evidence(subject: Subject) -> str:
    """Every capability says what was probed, and what is claimed is the best that `can` says."""
    found = subject.provider.capabilities()
    demand(bool(found), "it claims nothing at all")
    for row in found:
        demand(bool(row.evidence.strip()), f"{row.operation.value} {row.algorithm}: no evidence")
        demand(
            row.assurance <= subject.provider.assurance,
            f"{row.operation.value} {row.algorithm}: more assured than the provider",
        )
        demand(
            subject.provider.can(row.operation, row.algorithm, row.custody),
            f"{row.operation.value} {row.algorithm} is claimed and can() denies it",
        )
    demand(
        not subject.provider.can(Operation.SIGN, "no such algorithm", Custody.SOFTWARE),
        "can() claims an algorithm that does not exist",
    )
    hardware = [row for row in found if row.custody > Custody.SOFTWARE]
    return f"{len(found)} capabilities, {len(hardware)} of them above SOFTWARE"


@check
def keys_are_as_claimed(subject: Subject) -> str:
    """Key sets have the suite's sizes and exactly the custody that the provider claims."""
    suites = subject.suites()
    demand(bool(suites), "there is no suite that it can do")
    for suite in suites:
        keys, blob = subject.keys(suite)
        name = f"suite {suite.id}"
        demand(keys.suite == suite, f"{name}: the keys are of another suite")
        demand(len(keys.kem_public_key) == suite.kem.public_key_size, f"{name}: KEM key's size")
        demand(len(keys.sig_public_key) == suite.sig.public_key_size, f"{name}: signature key's")
        demand(0 < len(blob) <= MAX_BLOB, f"{name}: the blob has {len(blob)} bytes")
        for operation, algorithm, custody in (
            (Operation.DECRYPT, suite.kem.name, keys.kem_custody),
            (Operation.SIGN, suite.sig.name, keys.sig_custody),
        ):
            best = max(c for c in Custody if subject.provider.can(operation, algorithm, c))
            demand(
                custody == best,
                f"{name}: {algorithm} is {custody.name}, and {best.name} is claimed",
            )
        demand(keys.custody == min(keys.kem_custody, keys.sig_custody), f"{name}: its custody")
    return f"suites {', '.join(str(suite.id) for suite in suites)}"


@check
def a_custody_above_the_claim_is_refused(subject: Subject) -> str:
    """`require` refuses what `can` denies, with what is offered instead."""
    refused = 0
    for suite in subject.suites():
        keys, _ = subject.keys(suite)
        for custody in Custody:
            if custody <= keys.custody:
                subject.provider.require(suite, custody)
                continue
            what = f"suite {suite.id} in custody {custody.name}"
            refuses(what, CustodyTooLowError, subject.provider.require, suite, custody)
            refused += 1
    return f"{refused} demands refused"


@check
def what_is_encrypted_opens(subject: Subject) -> str:
    """With what was sealed, and with nothing else; every refusal is a typed error."""
    for suite in subject.suites():
        keys, _ = subject.keys(suite)
        public = KemPublicKey(suite.kem.id, keys.kem_public_key)
        for message in MESSAGES:
            enc, ciphertext = public.hpke_seal(b"info", b"aad", message)
            demand(
                keys.decrypt(enc, b"info", b"aad", ciphertext) == message,
                f"suite {suite.id}: another plaintext",
            )
        good = (enc, b"info", b"aad", ciphertext)
        for which, at, bad in (
            ("a changed enc", 0, flipped(enc, 7)),
            ("an enc with a changed end", 0, flipped(enc, -1)),
            ("another info", 1, b"other"),
            ("another aad", 2, b""),
            ("a changed ciphertext", 3, flipped(ciphertext, 0)),
            ("a changed tag", 3, flipped(ciphertext, -1)),
            ("no ciphertext", 3, b""),
        ):
            arguments = (*good[:at], bad, *good[at + 1 :])
            what = f"suite {suite.id}: {which}"
            refuses(what, AuthenticationError, keys.decrypt, *arguments)
        for bad in (b"", enc[:-1], enc + b"\0"):
            what = f"suite {suite.id}: an enc of {len(bad)} bytes"
            refuses(what, PqcIiotError, keys.decrypt, bad, *good[1:])
    return "and nothing else does"


@check
def what_is_signed_verifies(subject: Subject) -> str:
    """Of every length, and for this message only."""
    for suite in subject.suites():
        keys, _ = subject.keys(suite)
        public = SigPublicKey(suite.sig.id, keys.sig_public_key)
        for message in MESSAGES:
            signature = keys.sign(message)
            demand(
                len(signature) == suite.sig.signature_size,
                f"suite {suite.id}: a signature of {len(signature)} bytes",
            )
            demand(public.verify(message, signature), f"suite {suite.id}: it does not verify")
            demand(
                not public.verify(message + b"\0", signature),
                f"suite {suite.id}: it verifies for another message",
            )
    return "and for no other message"


@check
def keys_come_back(subject: Subject) -> str:
    """After closing and opening with the header: the same keys, that work."""
    demand(0 <= len(subject.header) <= MAX_HEADER, f"the header has {len(subject.header)} bytes")
    before = {suite.id: keys.kem_public_key for suite, (keys, _) in subject.made()}
    subject.reopen()
    demand(subject.provider.header == subject.header, "the header changed when it was opened")
    for suite in subject.suites():
        keys, _ = subject.keys(suite)
        demand(keys.kem_public_key == before[suite.id], f"suite {suite.id}: other keys came back")
        _works(subject, suite)
    return f"a header of {len(subject.header)} bytes"


@check
def blobs_open_here_and_unchanged_only(subject: Subject) -> str:
    """A changed blob, one of another suite, or another provider's: a typed error."""
    suites = subject.suites()
    tried = 0
    for suite in suites:
        _, blob = subject.keys(suite)
        step = max(1, len(blob) // 16)
        bad = [flipped(blob, at) for at in range(0, len(blob), step)]
        bad += [b"", blob[:-1], blob + b"\0", bytes(MAX_BLOB + 1)]
        for changed in bad:
            try:
                again = subject.provider.load(suite, changed)
            except PqcIiotError:
                tried += 1
                continue
            same = again.kem_public_key == subject.keys(suite)[0].kem_public_key
            demand(not same, f"suite {suite.id}: a changed blob opens as the same keys")
            raise ViolationError(f"suite {suite.id}: a changed blob opens as other keys")
        for other in suites:
            if (other.kem, other.sig) != (suite.kem, suite.sig):
                what = f"a blob of suite {suite.id} for suite {other.id}"
                refuses(what, ProviderError, subject.provider.load, other, blob)
    with subject.another() as stranger:
        for suite in suites:
            _, blob = subject.keys(suite)
            what = f"a blob of suite {suite.id} in another provider"
            refuses(what, ProviderError, stranger.load, suite, blob)
    return f"{tried} changed blobs refused"


@check
def sealed_secrets_open_here_only(subject: Subject) -> str:
    """For their purpose, in this provider, unchanged."""
    provider, secret = subject.provider, Secret.random()
    blob = provider.seal(b"purpose", secret)
    opened = provider.unseal(b"purpose", blob)
    demand(opened.mac(b"m") == secret.mac(b"m"), "another secret comes out")
    refuses("another purpose", ProviderError, provider.unseal, b"other", blob)
    for bad in (flipped(blob, 0), flipped(blob, -1), blob[:-1], b""):
        refuses("a changed seal", ProviderError, provider.unseal, b"purpose", bad)
    with subject.another() as stranger:
        refuses("another provider's", ProviderError, stranger.unseal, b"purpose", blob)
    again = subject.reopen().unseal(b"purpose", blob)
    demand(again.mac(b"m") == secret.mac(b"m"), "another secret comes out after a restart")
    return f"{len(blob)} bytes for a secret of 32"


@check
def the_counter_counts(subject: Subject) -> str:
    """One by one, also over a restart; claimed if and only if there is one."""
    counter = subject.provider.counter()
    claimed = any(row.operation is Operation.COUNTER for row in subject.provider.capabilities())
    demand(claimed == (counter is not None), "claim and counter() differ")
    if counter is None:
        return "there is none: rollback of the whole folder is not noticed"
    name, value = counter.name, counter.value()
    demand(1 <= len(name) <= 64, f"its name has {len(name)} bytes")
    demand(counter.value() == value, "it moves by itself")
    demand(counter.increment() == value + 1, "it does not count by one")
    demand(counter.value() == value + 1, "what increment returned is not its value")
    again = subject.reopen().counter()
    demand(again is not None, "it is gone after a restart")
    assert again is not None
    demand((again.name, again.value()) == (name, value + 1), "it is another one after a restart")
    return "and nobody sets it back" if counter.rollback_protected else "its owner can set it back"


@check
def quotes_answer_their_nonce(subject: Subject) -> str:
    """A quote verifies for its nonce, unchanged; claimed if and only if it can quote."""
    nonce = bytes(range(32))
    evidence = subject.provider.quote(nonce)
    claimed = any(row.operation is Operation.QUOTE for row in subject.provider.capabilities())
    demand(claimed == (evidence is not None), "claim and quote() differ")
    if evidence is None:
        return "it cannot quote"
    facts = verify_quote(evidence, nonce)
    refuses("another nonce", AuthenticationError, verify_quote, evidence, bytes(32))
    demand(subject.provider.assurance < Assurance.ATTESTED or bool(evidence.more), "no certificate")
    return ", ".join(f"{name} {value}" for name, value in facts.items())[:200]


@check
def threads_take_turns(subject: Subject) -> str:
    """Four threads use the keys of one suite at once."""
    suite = subject.suites()[-1]
    failures: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(5):
                _works(subject, suite)
        except BaseException as error:
            failures.append(error)

    subject.keys(suite)
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return f"suite {suite.id}, 20 times"


@check
def closed_it_does_nothing(subject: Subject) -> str:
    """Closing twice is closing once; then every operation is refused."""
    secret, suite = Secret.random(), subject.suites()[0]
    _, blob = subject.keys(suite)
    closed = subject.provider
    sealed = closed.seal(b"purpose", secret)
    subject.reopen()
    closed.close()
    refuses("generate after close", ProviderError, closed.generate, suite)
    refuses("load after close", ProviderError, closed.load, suite, blob)
    refuses("seal after close", ProviderError, closed.seal, b"purpose", secret)
    refuses("unseal after close", ProviderError, closed.unseal, b"purpose", sealed)
    return "every operation is refused"


@check
def discarded_twice_is_discarded_once(subject: Subject) -> str:
    """What a key set left in hardware goes, and nothing of another set with it."""
    suites = subject.suites()
    for suite in suites:
        _, blob = subject.provider.generate(suite)
        subject.provider.discard(suite, blob)
        subject.provider.discard(suite, blob)
    for suite in suites:
        _works(subject, suite)
    return "the other keys stay"


def _works(subject: Subject, suite: Suite) -> None:
    keys, _ = subject.keys(suite)
    public = KemPublicKey(suite.kem.id, keys.kem_public_key)
    enc, ciphertext = public.hpke_seal(b"", b"", b"message")
    demand(keys.decrypt(enc, b"", b"", ciphertext) == b"message", "another plaintext")
    verifies = SigPublicKey(suite.sig.id, keys.sig_public_key).verify(b"m", keys.sign(b"m"))
    demand(verifies, "a signature that does not verify")
