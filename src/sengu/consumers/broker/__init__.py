"""A connection to a broker, as a worker and a publisher need it, and what its errors mean."""
