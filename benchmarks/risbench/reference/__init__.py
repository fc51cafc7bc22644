"""The published method in plain PyTorch on open_clip's and segment-anything's own modules; one file a stage.

This is what exported graphs are compared with and what latency is measured against. It is written to be read beside the
paper (Yu, Seo, Son, CVPR 2023): every sum is where the method puts it, batched and in inference mode, never slowed
down.
"""

from risbench.reference.pipeline import ReferencePipeline

__all__ = ["ReferencePipeline"]
