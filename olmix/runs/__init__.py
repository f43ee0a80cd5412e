"""Runs: their keys and records, the journal, and the engines that train them."""
