"""Dense prediction: a class, a depth or a surface normal for every pixel."""
