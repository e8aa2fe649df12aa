"""What a deploy changes; see `plain.py`."""

TEXT = "one"
