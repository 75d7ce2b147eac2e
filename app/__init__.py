"""Holdfast: flash-sale reservations that never sell a unit twice and never lose one."""

__version__ = "0.1.0"
