"""Tests that talk to real TPM and PKCS#11 daemons."""
