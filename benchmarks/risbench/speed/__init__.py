"""How long the engine and what it is compared with take, and how much memory."""
