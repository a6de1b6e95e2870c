"""Faults of the loopback server: other."""
