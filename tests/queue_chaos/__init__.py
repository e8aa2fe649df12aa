"""Kills, deploys and a restart of the broker while numbers are handled, and exact accounts."""
