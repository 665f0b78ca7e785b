"""paravirtd: one machine for each user, which stays between the commands of ``xl``."""
