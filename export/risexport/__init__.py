"""From CLIP and SAM checkpoints to a bundle: torch modules, ONNX graphs, parity. No other package imports torch."""
