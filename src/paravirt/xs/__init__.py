"""xenstore for programs and people: a client of the store's socket, and the commands ``xenstore-ls`` and so on."""
