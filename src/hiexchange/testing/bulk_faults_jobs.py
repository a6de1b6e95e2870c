"""Faults of the loopback server: jobs."""
