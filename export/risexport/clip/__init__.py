"""CLIP as graphs: the text encoder and the proposal encoders."""
