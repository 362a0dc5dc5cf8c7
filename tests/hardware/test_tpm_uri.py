"""The grammar of `tpm:` URIs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pqc_iiot.errors import InvalidInputError
from pqc_iiot.providers.tpm_uri import TpmUri, UriError, parse_uri


def test_a_uri_says_how_to_reach_the_tpm_and_what_the_keys_depend_on() -> None:
    assert parse_uri("") == TpmUri("device:/dev/tpmrm0")
    assert parse_uri(";pcrs=7,0") == TpmUri("device:/dev/tpmrm0", pcrs=(0, 7))
    assert parse_uri("swtpm:path=/run/s;pin-file=/etc/pin;owner-auth-file=/etc/o") == TpmUri(
        "swtpm:path=/run/s", (), Path("/etc/pin"), Path("/etc/o")
    )
    assert parse_uri("swtpm:host=127.0.0.1,port=2321").emulated
    assert not parse_uri("tabrmd:").emulated


@pytest.mark.parametrize(
    ("rest", "complaint"),
    [
        (";pcrs=16", "PCR 16 can be reset"),
        (";pcrs=0,23", "PCR 23 can be reset"),
        (";pcrs=17", "PCR 17 can be reset"),
        (";pcrs=24", "PCR 24"),
        (";pcrs=", "needs a value"),
        (";pcrs", "needs a value"),
        (";pcrs=0,0", "named twice"),
        (";pcrs=0;pcrs=7", "given twice"),
        (";pcrs=-1", "numbers"),
        (";pcrs=0x7", "numbers"),
        (";pcrs=\u0661", "numbers"),
        (";pcrs=007", "numbers"),
        (";pin=1234", "not known"),
        (";pin-file=pin", "full path"),
        (";owner-auth-file=/a\0b", "full path"),
        ("device:tpm0", "full path"),
        ("swtpm:path=s", "full path"),
        ("swtpm:path=/" + "x" * 102, "longer than 102"),
        ("cmd:rm -rf", "no way to a TPM"),
        ("libtss2-tcti-evil.so:x", "no way to a TPM"),
        ("/tmp/evil.so", "no way to a TPM"),
    ],
)
def test_anything_else_is_refused(rest: str, complaint: str) -> None:
    with pytest.raises(UriError, match=complaint):
        parse_uri(rest)


def test_a_bad_uri_is_a_bad_argument_before_any_tpm_is_looked_for() -> None:
    pytest.importorskip("tpm2_pytss")
    from pqc_iiot.providers import open_provider

    with pytest.raises(InvalidInputError, match="PCR 16") as caught:
        open_provider("tpm:;pcrs=16")
    assert "tpm:device" in caught.value.hint


def test_without_the_extra_one_line_names_it_and_the_rest_works(tmp_path: Path) -> None:
    program = """
import sys
sys.modules["tpm2_pytss"] = None  # importing it fails
from pqc_iiot.cli import main
sys.exit(main(sys.argv[1:]))
"""

    def pqc(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", program, "--state", str(tmp_path / "state"), *words]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    result = pqc("init", "plc", "--provider", "tpm:")
    assert result.returncode == 1
    error, hint = result.stderr.splitlines()
    assert "the extra 'tpm'" in error
    assert "pip install 'pqc-iiot[tpm]'" in hint
    assert pqc("provider", "list").returncode == 0
    plain = pqc("init", "plc", "--provider", "software:insecure-plaintext-keys")
    assert plain.returncode == 0, plain.stderr
