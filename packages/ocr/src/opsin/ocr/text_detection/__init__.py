"""Detection of text of any shape in pictures of scenes."""
