"""Post-quantum end-to-end protection for industrial messages."""
