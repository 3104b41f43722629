"""Text in pictures: dense, arbitrarily shaped scene text."""
