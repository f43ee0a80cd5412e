"""Floor 2: domains on disk: shards, tokenisers, manifests, token samples and token sets."""
