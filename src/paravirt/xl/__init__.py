"""xl, the command line of the daemon's machine: a thin client, which imports neither the machine nor what it needs."""
