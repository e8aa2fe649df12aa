"""The web servers that are measured: ours and the peers, each behind the same few methods."""
