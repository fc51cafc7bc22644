"""SAM's mask generator: from an image and its prompts to proposals."""
