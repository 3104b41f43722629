"""Learned image compression: training, measuring, and files that decode to the same symbols everywhere."""
