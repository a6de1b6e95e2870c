"""Faults of the loopback server: files."""
