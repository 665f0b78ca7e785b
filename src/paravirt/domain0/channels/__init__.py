"""Channels: a guest's further consoles (hvc1 and so on), each joined to a pseudo terminal or a unix socket."""
