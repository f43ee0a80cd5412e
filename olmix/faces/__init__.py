"""Floor 3: what a person sees: configuration, command line, tables."""
