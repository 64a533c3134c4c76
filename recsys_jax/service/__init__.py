"""A run folder as a service over HTTP."""
