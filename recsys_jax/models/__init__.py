"""Towers, losses, metrics, popularity, and what a trained model is."""
