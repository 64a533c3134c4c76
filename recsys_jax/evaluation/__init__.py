"""How good a model is, for customers it has never seen, and how sure that is."""
