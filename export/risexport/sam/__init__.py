"""segment-anything's ``Sam`` as four graphs: image encoder, image projector, point decoder and mask decoder.

They compute what ``SamPredictor`` computes, with the exact savings of a fixed image and many prompts:

* the image's side of the first two-way block is projected once per image, by a graph of its own, and the embedding
  meets the prompts only when it starts to differ between them;
* in the attentions between image and tokens, the projection of the image's side is moved over to the tokens. With
  ``W`` the projection, ``(x W) k = x (W k)``: a prompt has about 7 tokens and the image 4096, so the product is
  cheaper by more than half. Biases that shift all logits of a softmax alike drop out of it;
* the last attention is computed for the tokens that are read, the predicted IoU's and the three masks';
* the transposed convolutions, 2 x 2 with stride 2, are matrix products on every cell, and the pixels are put in
  raster order only in the finished logits.

The tokens' side (self-attention, MLPs, heads) is segment-anything's own code.
"""
