"""The twelve prohibited items of PIDray, in the data set's order, and a colour for each."""

from __future__ import annotations

from opsin.detection.palette import Colour

CLASSES = (
    "Baton",
    "Pliers",
    "Hammer",
    "Powerbank",
    "Scissors",
    "Wrench",
    "Gun",
    "Bullet",
    "Sprayer",
    "HandCuffs",
    "Knife",
    "Lighter",
)

PALETTE: tuple[Colour, ...] = (
    (220, 20, 60),
    (0, 110, 255),
    (160, 0, 220),
    (0, 150, 60),
    (255, 0, 200),
    (0, 190, 190),
    (255, 40, 0),
    (90, 70, 0),
    (120, 120, 255),
    (0, 0, 140),
    (200, 0, 110),
    (90, 200, 0),
)
"""RGB; none is the orange, green or blue in which X-ray pictures show materials, nor near another."""

SUBSETS = ("easy", "hard", "hidden")
"""The parts of the test set: one item, several, deliberately concealed."""

PUBLISHED_COUNTS = {"train": 29_457, "easy": 9_482, "hard": 3_733, "hidden": 5_005}
"""Pictures of each part as published."""
