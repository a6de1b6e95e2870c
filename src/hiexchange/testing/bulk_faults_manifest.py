"""Faults of the loopback server: manifest."""
