"""From vectors to the best products: pure functions of arrays."""
