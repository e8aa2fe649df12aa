"""Servers that die at a step that a test names; `sitecustomize` kills them."""
