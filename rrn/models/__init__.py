"""Networks: two segmenters, and the discriminators that judge regions of their pseudo-labels.

segmenter: `Segmenter` and `RegionDiscriminator`, and their modes (teaching, evaluating, frozen, recomputing).
pretrained: weights of an encoder, by timm, torchvision or a file.
regions: pixels <-> regions, the best regions of a batch.
device: what `device:` in params.yaml is to torch.
folding: batch norm folded into the convolutions of copies that follow the weights.
"""
