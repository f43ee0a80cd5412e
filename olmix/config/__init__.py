"""What a user writes: params.yaml, runtime.yaml and the options of `olmix fit`, checked."""
