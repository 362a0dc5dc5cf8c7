"""Security providers: who performs a device's private operations, and who protects them.

A provider is chosen by URI (`software:`, `tpm:`, `pkcs11:`; other packages register under
their own scheme). It separates what hardware can *perform* from what it can only *protect*:
see `Custody`.
"""

from .base import (
    Assurance,
    Capability,
    Counter,
    Custody,
    Evidence,
    KeySet,
    Operation,
    PassphraseSource,
    ProviderRequest,
    SecurityProvider,
    SigningKey,
    unusable_uri,
)
from .registry import ENTRY_POINTS, SCHEMES, open_provider, schemes

__all__ = [
    "ENTRY_POINTS",
    "SCHEMES",
    "Assurance",
    "Capability",
    "Counter",
    "Custody",
    "Evidence",
    "KeySet",
    "Operation",
    "PassphraseSource",
    "ProviderRequest",
    "SecurityProvider",
    "SigningKey",
    "open_provider",
    "schemes",
    "unusable_uri",
]
