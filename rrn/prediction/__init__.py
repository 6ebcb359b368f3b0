"""Labels for new images and videos: `python -m rrn.predict`.

command: the command line, file by file; labeling: what is said of one image, in tiles where it is large.
exported: a model.onnx in place of a run; files: which files are labeled, and their names in OUT.
videos: frames in and out, by PyAV; writing: the files that are asked for, and region scores drawn.
"""
