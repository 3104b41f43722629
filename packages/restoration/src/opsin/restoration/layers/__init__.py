"""Building blocks that restoration networks share; each file is named after what it holds."""
