"""Look-alike malls and populations with a known answer."""
