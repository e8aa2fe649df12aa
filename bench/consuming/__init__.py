"""The programs that consume queues, each behind the same few methods."""
