"""Cuts the demo clips into photos by what is shown, as `faceid eval liveness` reads them.

    python frames.py OUT            # OUT/live, OUT/phone, OUT/paper: every fourth frame with one large face in it

Frames of door and night in which the truth has one face of at least 80 pixels that looks at the camera. Attacks
are frames in which somebody holds a photo up: the truth names the photo, and the face of the one who holds it is hidden by it.
"""
import json
import sys
from pathlib import Path

import cv2

from networks import HERE

EVERY, WIDTH, TURN = 4, 80, 25


def main():
    out = Path(sys.argv[1])
    counts = {}
    for clip in ("door", "night"):
        truth = json.loads((HERE / f"{clip}.json").read_text())
        video = cv2.VideoCapture(str(HERE / f"{clip}.mp4"))
        for number, faces in enumerate(truth["frames"]):
            ok, image = video.read()
            if not ok:
                raise SystemExit(f"{clip}.mp4 ends at frame {number}, its truth at {len(truth['frames'])}")
            if number % EVERY or len(faces) != 1:
                continue
            x0, _, x1, _ = faces[0]["box"]
            if x1 - x0 < WIDTH or abs(faces[0]["yaw"]) > TURN:
                continue
            kind = faces[0]["kind"]
            (out / kind).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(out / kind / f"{clip}_{number:04}.png"), image)
            counts[kind] = counts.get(kind, 0) + 1
    print(", ".join(f"{kind} {count}" for kind, count in sorted(counts.items())))


if __name__ == "__main__":
    main()
