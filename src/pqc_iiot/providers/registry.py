"""Providers by URI scheme: those of this package, loaded when they are named, and those of
other packages, which register an entry point in the group `pqc_iiot.providers`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from ..errors import MissingExtraError
from .base import PassphraseSource, ProviderRequest, SecurityProvider, unusable_uri

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

Factory = Callable[[ProviderRequest], SecurityProvider]

ENTRY_POINTS = "pqc_iiot.providers"
"""The group in which a package names its scheme and what opens it: an entry point
`scheme = "package.module:Provider"` whose object is called with a `ProviderRequest`."""


_BUILT_IN: dict[str, tuple[str, str]] = {}
"""The modules of this package by scheme, and the extras that they need."""


def _built_in(module: str, name: str, extra: str = "") -> Factory:
    _BUILT_IN[module] = module, extra

    def factory(request: ProviderRequest) -> SecurityProvider:
        try:
            provider = getattr(import_module(f".{module}", __package__), name)
        except ImportError as cause:
            if not extra:
                raise
            raise MissingExtraError(
                f"the provider {module}: needs the extra {extra!r}, which is not installed",
                hint=f"pip install 'pqc-iiot[{extra}]' ({cause})",
            ) from cause
        made: SecurityProvider = provider(request)
        return made

    return factory


SCHEMES: dict[str, Factory] = {
    "software": _built_in("software", "SoftwareProvider"),
    "tpm": _built_in("tpm", "TpmProvider", "tpm"),
    "pkcs11": _built_in("pkcs11", "Pkcs11Provider", "hsm"),
}
"""Providers by URI scheme; a program may add its own. These come before entry points."""


def open_provider(
    uri: str, header: bytes | None = None, passphrase: PassphraseSource | None = None
) -> SecurityProvider:
    """Opens the provider that `uri` names; with `header`, the same one as before.

    `InvalidInputError` for an unknown scheme, or `ProviderError` where it was stored with a
    header; `MissingExtraError` where the provider's extra is not installed; `ProviderError`
    where it does not open.
    """
    scheme, colon, path = uri.partition(":")
    factory = SCHEMES.get(scheme) if colon else None
    if factory is None and colon and (found := entry_points().get(scheme)):
        factory = found.load()
    if factory is None:
        raise unusable_uri(header)(
            f"no security provider is registered for {uri!r}",
            hint=f"known: {', '.join(f'{name}:' for name in schemes())}",
        )
    return factory(ProviderRequest(path, header, passphrase))


@dataclass(frozen=True, slots=True)
class Scheme:
    """A scheme and where it comes from: `state` is `ready` or what is missing."""

    scheme: str
    from_: str
    state: str


def described() -> list[Scheme]:
    """Every scheme; those of other packages are not loaded for it."""
    found = []
    for name in SCHEMES:
        module, extra = _BUILT_IN.get(name, ("", ""))
        state = "ready"
        if extra and not _importable(module):
            state = f"needs: pip install 'pqc-iiot[{extra}]'"
        found.append(Scheme(name, "pqc-iiot" if module else "this program", state))
    others = sorted(entry_points().items())
    return found + [Scheme(n, e.value, "ready") for n, e in others if n not in SCHEMES]


def _importable(module: str) -> bool:
    try:
        import_module(f".{module}", __package__)
    except ImportError:
        return False
    return True


def schemes() -> list[str]:
    """Every scheme that a URI may begin with, those of other packages too."""
    return [*SCHEMES, *(name for name in sorted(entry_points()) if name not in SCHEMES)]


def entry_points() -> dict[str, EntryPoint]:
    """What other packages registered, by scheme; nothing of it is loaded."""
    from importlib.metadata import entry_points as installed  # slow to import

    return {entry.name: entry for entry in installed(group=ENTRY_POINTS)}
