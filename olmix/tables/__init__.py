"""Results that others produced: tables of ratios and metrics, groupings of metrics into tasks, and priors."""
