"""The laws, one a file: how the BPB of a task depends on the mixture; and what they are fitted to."""
