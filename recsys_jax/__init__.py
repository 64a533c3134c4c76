"""Recommendations from what kind of customer someone is."""
