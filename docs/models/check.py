"""Checks session.vp and its variants with Verifpal (crate `verifpal`), and that the broken
ones are found out: python docs/models/check.py [VERIFPAL]

A variant is the model with some lines replaced and queries of its own. In the expected
code, a letter and digit stand for each query: a0 holds, a1 has an attack.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

MODEL = Path(__file__).with_name("session.vp")
_BOB_PROVES = "_ = SIGNVERIF(pb, CONCAT(a_th2, pb, a_mac2), a_sig2)?"
_ALICE_PROVES = "_ = SIGNVERIF(pa, CONCAT(b_th3, pa, b_mac3), b_sig3)?"
_MALLORY = """principal Mallory[
	knows private m
	pm = PUBKEY(m)
	leaks m
]

Mallory -> Alice: [pm]
Alice -> Bob: [pa]"""


@dataclass(frozen=True)
class Variant:
    """What differs from the model, and what must come out."""

    name: str
    expected: str
    replace: tuple[tuple[str, str], ...] = ()
    queries: tuple[str, ...] = ()
    scenarios: str = ""

    def text(self, model: str) -> str:
        """The variant as a model of its own."""
        for old, new in self.replace:
            if old not in model:
                raise SystemExit(f"{self.name}: the model lacks {old!r}")
            model = model.replace(old, new)
        if self.queries:
            model = model[: model.index("queries[")]
            model += self.scenarios + "queries[\n" + "\n".join(self.queries) + "\n]\n"
        return model


VARIANTS = (
    Variant("the model: authentication, secrecy, forward secrecy", "a0a0a0a0c0c0c0c0e0"),
    Variant(
        "key-compromise impersonation: Alice's key leaked before, nobody else is Bob to her",
        "a0a0c0c0",
        (("pa = PUBKEY(a)\n", "pa = PUBKEY(a)\n\tleaks a\n"),),
        (
            "authentication? Bob -> Alice: m4",
            "authentication? Bob -> Alice: p2",
            "confidentiality? a_ab",
            "confidentiality? reading",
        ),
    ),
    Variant(
        "key-compromise impersonation: Bob's key leaked before, nobody else is Alice to him",
        "a0a0c0c0",
        (("pb = PUBKEY(b)\n", "pb = PUBKEY(b)\n\tleaks b\n"),),
        (
            "authentication? Alice -> Bob: m3",
            "authentication? Alice -> Bob: p1",
            "confidentiality? b_ba",
            "confidentiality? command",
        ),
    ),
    Variant(
        "unknown key share: Alice also talks to Mallory, and Bob never takes that for himself",
        "a0a0c0",
        (
            ("Alice -> Bob: [pa]", _MALLORY),
            ("generates x, c_i", "knows public peer\n\tgenerates x, c_i"),
            ("CONCAT(l_mac2, a_c_r, a_th2, pb)", "CONCAT(l_mac2, a_c_r, a_th2, peer)"),
            (_BOB_PROVES, "_ = SIGNVERIF(peer, CONCAT(a_th2, peer, a_mac2), a_sig2)?"),
            ("a_th3 = HASH(a_th2, a_c_r, a_sig2, pb)", "a_th3 = HASH(a_th2, a_c_r, a_sig2, peer)"),
        ),
        (
            "authentication? Alice -> Bob: m3",
            "authentication? Alice -> Bob: p1",
            "confidentiality? b_ba",
        ),
        "scenarios[\n\tAlice[peer = pb]\n\tAlice[peer = pm]\n]\n\n",
    ),
    Variant(
        "broken on purpose: Alice does not look at Bob's signature",
        "a1c1",
        ((_BOB_PROVES, _BOB_PROVES.rstrip("?")),),
        ("authentication? Bob -> Alice: p2", "confidentiality? reading"),
    ),
    Variant(
        "broken on purpose: Bob does not look at Alice's signature",
        "a1c1",
        ((_ALICE_PROVES, _ALICE_PROVES.rstrip("?")),),
        ("authentication? Alice -> Bob: p1", "confidentiality? command"),
    ),
)


def main(verifpal: str = "verifpal") -> int:
    """Runs every variant, one session of each principal; 1 where one came out otherwise."""
    failed = 0
    model = MODEL.read_text()
    with tempfile.TemporaryDirectory() as folder:
        for index, variant in enumerate(VARIANTS):
            file = Path(folder, f"variant{index}.vp")
            file.write_text(variant.text(model))
            command = [verifpal, "verify", str(file), "--result-code", "--sessions", "1"]
            done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
            code = (done.stdout.split() or [done.stderr])[-1]
            verdict = "as expected" if code == variant.expected else f"NOT {variant.expected}"
            failed |= code != variant.expected
            print(f"{code:20} {verdict:12} {variant.name}", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
