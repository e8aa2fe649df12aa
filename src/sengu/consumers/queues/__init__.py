"""What `sengu queues` and `sengu dead` ask a broker."""
