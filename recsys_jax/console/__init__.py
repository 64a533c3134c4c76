"""What commands share: the terminal, and where things lie."""
