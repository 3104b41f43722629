"""Prohibited items in X-ray pictures of baggage: PIDray, SDANet, and a report for the inspector."""
