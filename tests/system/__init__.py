"""The real program with real peers."""
