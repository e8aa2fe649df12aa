"""Thin system calls, one module each, and the loop that waits: no decisions, nothing of sengu's own nouns."""
