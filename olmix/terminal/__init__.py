"""What a person at a terminal sees of any program: exit codes, progress, tables."""
