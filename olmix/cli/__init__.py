"""The command line: one module a command, its view beside it."""
