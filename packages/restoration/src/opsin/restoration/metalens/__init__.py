"""Metalens imaging: pictures through a flat lens whose blur varies over the field, and their restoration."""
