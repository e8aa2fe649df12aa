"""What a consumer is made of, and what becomes of a message: data and decisions, pure."""
