"""A worker process: its subscriptions, its jobs in threads and tasks, and suspects alone."""
