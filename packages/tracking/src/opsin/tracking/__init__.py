"""Single-object tracking in videos."""
