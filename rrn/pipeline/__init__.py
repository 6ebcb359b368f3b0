"""From params.yaml to results: the front door, stages, presets. No torch.

repro: `python -m rrn.repro`; aside: what stages would delete is kept; missing: a study that grows (`--missing`).
scheduler: stages side by side; gpus: a GPU each; progress: how far they are.
stage: a notebook as a stage (`rrn.stage`); strip: notebooks without outputs, code without remarks.
presets: overlays on params.yaml (`rrn.preset`); buildable: networks are tried before any stage.
fetch: the embedded data (`rrn.fetch`); git: what the last commit holds of a file.
"""
