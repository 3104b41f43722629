"""Cloud removal: one cloud-free picture from several cloudy satellite acquisitions of a place."""
