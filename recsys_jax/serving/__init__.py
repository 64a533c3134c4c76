"""From a trained model and attributes to products."""
