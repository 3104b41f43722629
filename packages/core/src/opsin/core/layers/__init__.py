"""Building blocks that several systems share; each file is named after what it holds."""
