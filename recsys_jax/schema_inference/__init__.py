"""Any tables to a dataset.toml: which is which, what stands in each column, and what may be learned from."""
