"""Domain 0: the services and the policy of the control domain."""
