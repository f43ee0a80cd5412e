"""The proxy: its recipe, model, training and evaluation."""
