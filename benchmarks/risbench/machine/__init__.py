"""The machine: its clocks, limits and memory."""
