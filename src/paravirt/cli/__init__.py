"""The ``paravirt`` command: a thin layer of options and words over the library."""
