"""What a build decides: plain values and arithmetic. No files, no processes, no printing."""
