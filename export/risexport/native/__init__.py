"""Native engines, compiled by TensorRT and TensorRT-RTX."""
