"""Label the photos once: faces, points, aligned crops and the teachers' embeddings.

    python prepare.py            # one process a core; resumes where it stopped

Writes `faces/NNNN.npz` parts of 250 photos and then `crops.npy` and `faces.npz` under
FACEID_TRAIN_DIR, and `held_out.txt` beside this file. The crops are on the ArcFace template
with a margin of 16 pixels, so that augmentation can turn and shift them without empty corners.
"""

import multiprocessing
from pathlib import Path

import cv2
import numpy as np

import teachers as t

MARGIN = 16
PART = 250
PROCESSES = 2


def subject(boxes, scores, shape):
    """The index of the photo's subject: large and near the centre (LFW centres its person)."""
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2 - np.float32([shape[1], shape[0]]) / 2
    side = np.sqrt(np.prod(boxes[:, 2:] - boxes[:, :2], 1))
    return int(np.argmax(side - np.hypot(*centre.T)))


def label(path, detector, foamliu, retail):
    """One photo's record, or None where no face is found."""
    image = cv2.imread(str(path))
    boxes, scores, points = detector(image, 320)
    if not len(boxes):
        return None
    i = subject(boxes, scores, image.shape)
    p = points[i]
    return dict(
        photo=f"{path.parent.name}/{path.name}",
        box=np.float32([*boxes[i], scores[i]]),
        points=p.astype(np.float32),
        crop=t.align(image, p, margin=MARGIN),
        foamliu=t.flip_averaged(foamliu, t.align(image, p)),
        retail=t.flip_averaged(retail, t.align(image, p, t.RETAIL_128, 128)),
    )


def label_part(out, paths):
    """Label one part of the photos and write it whole or not at all."""
    cv2.setNumThreads(1)
    detector, foamliu, retail = t.YuNet(), t.Foamliu(), t.Retail()
    records = [label(p, detector, foamliu, retail) for p in paths]
    records = [r for r in records if r is not None]
    unfinished = out.with_suffix(".part.npz")
    np.savez(unfinished, **{k: np.array([r[k] for r in records]) for k in records[0]})
    unfinished.rename(out)
    print(out.name, flush=True)


def main():
    work = t.work_dir()
    parts = work / "faces"
    parts.mkdir(exist_ok=True)
    paths = sorted((t.shared_dir() / "faces/lfw/images").glob("*/*.jpg"))
    todo = [(parts / f"{i:05}.npz", paths[i : i + PART]) for i in range(0, len(paths), PART)]
    with multiprocessing.get_context("spawn").Pool(PROCESSES) as pool:
        pool.starmap(label_part, [job for job in todo if not job[0].exists()], chunksize=1)

    loaded = [np.load(p) for p in sorted(parts.glob("?????.npz"))]
    table = {k: np.concatenate([p[k] for p in loaded]) for k in loaded[0].files}
    people = np.array([f.split("/")[0] for f in table["photo"]])
    names, person, photos = np.unique(people, return_inverse=True, return_counts=True)
    held = np.array([t.is_held_out(n, c) for n, c in zip(names, photos)])
    np.save(work / "crops.npy", table.pop("crop"))
    np.savez(work / "faces.npz", person=person, names=names, photos=photos, held=held[person], **table)
    (Path(__file__).parent / "held_out.txt").write_text("".join(f"{n}\n" for n in names[held]))
    print(f"{len(person)} faces of {len(paths)} photos; {held.sum()} of {len(names)} people held out,")
    print(f"{held[person].sum()} photos held out, {(held & (photos >= 10)).sum()} people with ten or more")


if __name__ == "__main__":
    main()
