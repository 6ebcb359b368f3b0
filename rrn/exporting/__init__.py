"""A finished run for other programs: `python -m rrn.export`.

command: the command line, and what lies in the folder; network: one pass of the segmenters, as torch.export takes it.
fixed_padding: layers of timm whose padding depends on the size of an image, with numbers in place of formulas.
onnx_file: the same as ONNX, for images of any size; region_graph: its second output, region scores.
quantization: in 8 bits, and what that costs.
model_card: what a reader must know of the weights.
"""
