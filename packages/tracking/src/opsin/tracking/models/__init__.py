"""Tracking networks, one published system a folder, and the models that train and run them."""
