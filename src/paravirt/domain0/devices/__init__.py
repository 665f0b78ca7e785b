"""What the backends of all kinds of split devices have in common."""
