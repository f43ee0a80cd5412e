"""Floor 2: the proxy: its recipe, model, data order, training and evaluation."""
