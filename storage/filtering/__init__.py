"""Filters of the catalog: what one may cost, where it is evaluated, and what it means for images with captions."""
