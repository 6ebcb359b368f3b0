"""Small evidence files whose region tables are counted from their pictures, for the tests of the explorer."""

import numpy as np
import pandas as pd

from rrn.config import Filter
from rrn.reliability.evidence import About, EvidenceWriter, Pictures
from rrn.reliability.scores import SCORES

CLASSES = ("ground", "<b>disc</b>", "square & co")
RULE = Filter(by="region_score", keep="fraction", tau=0.6, fraction=0.75, start=0)
KNOWN = ("region_score", "other_score", "product", "confidence", "certainty", "agreement", "divergence")


def patches(rng, height, width, side, classes=CLASSES):
    """Return labels of square patches, uint8 [height, width]."""
    rows, columns = -(-height // side), -(-width // side)
    return rng.integers(0, len(classes), (rows, columns), np.uint8).repeat(side, 0).repeat(side, 1)[:height, :width]


def pictures_of(rng, height, width, classes=CLASSES):
    """Return random pictures: labels with void, pseudo-labels that are wrong here and there."""
    label = patches(rng, height, width, 7, classes)
    pseudo = np.stack([np.where(rng.random(label.shape) < 0.25, patches(rng, height, width, 5, classes), label)] * 2)
    pseudo[1] = np.where(rng.random(label.shape) < 0.2, 0, pseudo[1])
    label = label.copy()
    label[:9, :10] = 255
    image = rng.integers(0, 256, (height, width, 3), np.uint8)
    return Pictures(image, label, pseudo, pseudo[0])


def table_of(rng, name, pictures, region, judged=True, classes=CLASSES):
    """Return the regions of an image that have a valid pixel, with random scores."""
    rows = []
    label, valid = pictures.label, pictures.label != 255
    for k, pseudo in enumerate(pictures.pseudo_labels):
        for row in range(-(-label.shape[0] // region)):
            for column in range(-(-label.shape[1] // region)):
                part = np.s_[row * region : (row + 1) * region, column * region : (column + 1) * region]
                right = valid[part] & (pseudo[part] == label[part])
                if not valid[part].any():
                    continue
                own, other, confidence, certainty = rng.random(4).round(3) if judged else [np.nan] * 2 + [0.5, 0.25]
                same = (pictures.pseudo_labels[0] == pictures.pseudo_labels[1])[part][valid[part]].mean()
                values = (own, other, own * other, confidence, certainty, same, 0.6 * (1 - same))
                counts = {"pixels": valid[part].sum(), "right": right.sum()}
                for index, each in enumerate(classes):
                    chosen = valid[part] & (pseudo[part] == index)
                    counts |= {f"pixels:{each}": chosen.sum(), f"right:{each}": (chosen & right).sum()}
                place = {"id": name, "segmenter": k + 1, "row": row, "column": column}
                rows.append(place | dict(zip(KNOWN, values, strict=True)) | counts)
    return with_all_scores(pd.DataFrame(rows))


def with_all_scores(table):
    """Return a region table in which a score that it lacks, and that is not KNOWN, is the confidence."""
    return table.assign(**{name: table["confidence"] for name in SCORES if name not in (*KNOWN, *table)})


def write(path, judged=True, size=(20, 28), region=8, images=4, shown=3, seed=0, classes=CLASSES):
    """Write an evidence file with two splits; of `images` images of a split, `shown` have pictures."""
    rng = np.random.default_rng(seed)
    ids = {split: tuple(f"{split}_{number}" for number in range(images)) for split in ("val", "unlabeled")}
    about = About(
        name="small",
        partition="1of16",
        method="rrn" if judged else "cps_cutmix",
        seed=0,
        classes=classes,
        colours=(),
        region=region,
        rule=RULE if judged else RULE.model_copy(update={"by": "none"}),
        rho="agreement" if judged else "none",
        objective="accuracy" if judged else None,
        images={split: names[:shown] for split, names in ids.items()},
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    with EvidenceWriter(path, about) as writer:
        for split, names in ids.items():
            for name in names:
                pictures = pictures_of(rng, *size, classes)
                writer.add(split, table_of(rng, name, pictures, region, judged, classes), {name: pictures})
    return path
