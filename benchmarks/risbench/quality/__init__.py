"""How good answers and masks are."""
