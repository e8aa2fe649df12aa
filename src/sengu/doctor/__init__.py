"""What this machine and this user allow: small checks as data, and what follows from them.

Nothing here changes anything, takes long or raises. Imported by cli, whose `doctor` shows it.
"""
