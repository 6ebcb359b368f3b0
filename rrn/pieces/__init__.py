"""Results in pieces: what a finished run leaves in git, one small file a run. No torch.

Tables and figures of a study are made from its pieces alone, wherever and whenever they were computed.

made_with: the settings that a run was made with, so far as they matter to its numbers, and how two of them differ.
piece: what a piece holds, as text and back.
compose: a piece from what the train and evaluate stages leave in runs/.
store: pieces in results/finished-runs/: written, read, refused, and which a study lacks.
"""
