"""The virtual firewall-router that all network interfaces attach to, its services, and what it is joined to."""
