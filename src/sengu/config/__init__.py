"""Settings as data: type, default, help, effect; and what they are assembled into."""
