"""What makes audio safe: the bounded edge in front of each sink, and the account of every sample."""
