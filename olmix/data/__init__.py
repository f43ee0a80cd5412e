"""Domains on disk: shards, tokenisers, manifests, token samples and token sets."""
