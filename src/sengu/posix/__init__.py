"""Thin system calls, one module each: no decisions, nothing of sengu's own nouns."""
