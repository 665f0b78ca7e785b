# Parameters of scheduling, for Python.
