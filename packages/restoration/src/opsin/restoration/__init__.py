"""Image restoration: super-resolution from pairs of pictures, with tiled prediction."""
