"""What tests, demos and users' own tests need: loopback servers and a synthetic population."""
