"""Reviews to customers: encoders, clustering, profiles, keywords, personas in folds."""
