"""What a newcomer can run from a clone."""
