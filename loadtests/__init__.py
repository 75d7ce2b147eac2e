"""Shoppers of several tempers against a running Holdfast, and what is verified after they left."""
