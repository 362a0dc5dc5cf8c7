"""What a `pkcs11:` URI may say; no token is needed."""

from __future__ import annotations

from pathlib import Path

import pytest

from pqc_iiot import InvalidInputError, ProviderError
from pqc_iiot.providers import open_provider
from pqc_iiot.providers.pkcs11_uri import Numbers, UriError, parse_uri


def test_every_part() -> None:
    uri = parse_uri(
        "module=/lib/m.so;token=line%201;serial=0a;manufacturer=Some%20One;model=x"
        ";pin-file=/etc/pin;falcon-512=0x80000001,0xC0000070,0xC0000071;ml-kem-768=73,15,23,2"
    )
    assert uri.module == Path("/lib/m.so")
    assert (uri.token, uri.serial, uri.manufacturer, uri.model) == ("line 1", "0a", "Some One", "x")
    assert uri.pin_file == Path("/etc/pin")
    assert uri.numbers == {
        "Falcon-512": Numbers(0x80000001, 0xC0000070, 0xC0000071),
        "ML-KEM-768": Numbers(73, 15, 23, 2),
    }
    assert "line 1" in str(uri)


def test_the_names_of_rfc_7512() -> None:
    uri = parse_uri("token=plant;serial=1?module-path=/lib/m.so&pin-source=file:/etc/pin")
    assert (uri.token, uri.module, uri.pin_file) == ("plant", Path("/lib/m.so"), Path("/etc/pin"))


BAD = [
    "",
    "module",
    "module=",
    "token=x",
    "module=m.so",
    "module=../m.so",
    "module=/m.so;pin-file=pin",
    "module=/m.so;pin-value=1234",
    "module=/m.so?pin-value=1234",
    "module=/m.so;pin=1234",
    "module=/m.so;module=/n.so",
    "module=/m.so;module-path=/n.so",
    "module=/m.so;object=x",
    "module=/m.so;token=%ff",
    "module=/m.so%00",
    "module=/m.so;;token=x",
    "module=/m.so;falcon-512=1,2",
    "module=/m.so;falcon-512=1,2,3,4,5",
    "module=/m.so;falcon-512=1,2,x",
    "module=/m.so;falcon-512=1,2,-3",
    "module=/m.so;falcon-512=1,2,0x100000000",
    "module=/m.so;falcon-512=1,2,3;falcon-512=1,2,3",
    "module=/m.so;rsa=1,2,3",
]


@pytest.mark.parametrize("rest", BAD)
def test_what_is_not_understood_is_refused(rest: str) -> None:
    with pytest.raises(UriError):
        parse_uri(rest)


def test_no_pin_is_repeated_in_an_error() -> None:
    with pytest.raises(UriError) as caught:
        parse_uri("module=/m.so;pin-value=correct-horse")
    assert "correct-horse" not in str(caught.value)
    assert "pin-file=" in str(caught.value)


def test_a_typed_uri_is_bad_input_and_a_stored_one_a_bad_file() -> None:
    with pytest.raises(InvalidInputError) as typed:
        open_provider("pkcs11:token=x")
    assert "pkcs11:module=" in typed.value.hint
    with pytest.raises(ProviderError):
        open_provider("pkcs11:token=x", b"header")
