"""`python -m pqc_iiot.conformance URI [option...]`: the same as `pqc-iiot provider test URI`."""

from __future__ import annotations

import sys

from ..cli import main

if __name__ == "__main__":
    sys.exit(main(["provider", "test", *sys.argv[1:]]))
