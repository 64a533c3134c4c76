"""The commands that answer with products."""
