"""What is drawn: the embedding space, bars and curves, as PNG."""
