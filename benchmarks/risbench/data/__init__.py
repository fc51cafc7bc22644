"""Data sets of images, expressions and masks."""
