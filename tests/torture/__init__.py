"""A machine under torture: domains that come, go and crash at random beside others that work."""
