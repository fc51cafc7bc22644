"""What the graphs should compute, the long way, and how near they come to it."""
