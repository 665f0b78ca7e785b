"""The ``xl`` command."""
