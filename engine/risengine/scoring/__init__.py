"""The strategies that score proposals against an expression, and what they measure of masks."""
