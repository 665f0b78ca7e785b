"""xl's configuration files (xl.cfg): their grammar, and what the settings mean."""
