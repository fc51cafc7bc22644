"""Graphs in half precision, and what stays in single."""
