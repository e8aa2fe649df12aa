"""Thin system calls, one module each, and the loop that waits. Nothing of sengu's own nouns."""
