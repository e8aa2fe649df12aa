"""Every setting, declared once. No logic lives here.

Flags, environment names, help and the reference in docs follow from these tables.
"""
