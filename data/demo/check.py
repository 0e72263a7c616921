"""Measures the demo people and clips with the third-party networks in `$FACEID_SHARED/models`.

    python check.py                 # people and all clips
    python check.py people          # only the people
    python check.py door night      # only these clips

Exit status 1 when a person comes too near to a real one or a visit is not judged as its truth says.
"""
import json
import sys

import cv2
import numpy as np

import networks as nets
import people

STEP = 3
MATCH = .45          # a generous threshold for either embedder: strangers lie below .3
LIVE = .5
SMALLEST, TURN_LIMIT, DARK_LIMIT = 60, 35, 40


def photos():
    """Embeddings of the committed enrolment photos by person: id → (n×128, n×256), lowest score."""
    out, lowest = {}, {}
    for folder in sorted((nets.HERE / "people").iterdir()):
        rows = [people.face_of(cv2.imread(str(p))) for p in sorted(folder.glob("*.jpg"))]
        if any(r is None for r in rows):
            raise SystemExit(f"{folder}: a photo without a face")
        out[folder.name] = np.stack([r[0] for r in rows]), np.stack([r[1] for r in rows])
        lowest[folder.name] = min(r[2] for r in rows)
    return out, lowest


def check_people(gallery, lowest):
    foam, retail, file = people.real_embeddings()
    bad = []
    print(f"| person | photos | lowest YuNet score | own photos, lowest cosine (foamliu / retail) | "
          f"nearest other demo person | nearest of {len(file)} LFW photos |\n|---|---|---|---|---|---|")
    for id, (a, b) in gallery.items():
        own = [np.min((e @ e.T)[np.triu_indices(len(e), 1)]) for e in (a, b)]
        other = [max(float(nets.unit(g[k].mean(0)) @ nets.unit(e.mean(0))) for i, g in gallery.items() if i != id) for k, e in enumerate((a, b))]
        # Against real people the person is the mean of the photos, and each photo on its own.
        real = [float((r @ nets.unit(e.mean(0))).max()) for r, e in ((foam, a), (retail, b))]
        single = [float((r @ e.T).max()) for r, e in ((foam, a), (retail, b))]
        print(f"| {id} | {len(a)} | {lowest[id]:.2f} | {own[0]:.2f} / {own[1]:.2f} | {other[0]:.2f} / {other[1]:.2f} | "
              f"{real[0]:.2f} / {real[1]:.2f} (one photo {single[0]:.2f} / {single[1]:.2f}) |")
        if max(np.max(nets.unit(g[k].mean(0)) @ nets.unit(e.mean(0))) for i, g in gallery.items() if i != id
               for k, e in enumerate((a, b))) > people.APART:
            bad.append(f"{id} is too near to another demo person")
        if max(real) > people.LIMIT:
            bad.append(f"{id} is too near to a real person")
    return bad


def check_clip(name, gallery):
    truth = json.loads((nets.HERE / f"{name}.json").read_text())
    video = cv2.VideoCapture(str(nets.HERE / f"{name}.mp4"))
    means = {i: tuple(nets.unit(e.mean(0)) for e in g) for i, g in gallery.items()}
    seen = {i: [] for i in range(len(truth["visits"]))}
    n, missed, ghosts, faces = 0, 0, 0, 0
    size = (truth["width"], truth["height"])
    while True:
        ok, image = video.read()
        if not ok:
            break
        rows = truth["frames"][n]
        if n % STEP == 0:
            found = nets.detect(image, longest=640)
            used = set()
            for row in rows:
                match = [(nets.iou(f[:4], row["box"]), k) for k, f in enumerate(found)]
                best = max(match, default=(0, -1))
                faces += 1
                if best[0] < .4:
                    missed += 1
                    seen[row["visit"]].append(dict(n=n, row=row, box=None))
                    continue
                used.add(best[1])
                f = found[best[1]]
                e = nets.embed(image, f[5:])
                pair, nox, _ = nets.liveness(image, f)
                w = row["box"][2] - row["box"][0]
                off = np.float32(row["points"]) - f[5:].reshape(5, 2)
                x0, y0, x1, y1 = f[:4].clip(0).astype(int)
                seen[row["visit"]].append(dict(n=n, row=row, box=f[:4], score=f[4], iou=best[0], e=e, pair=pair, nox=nox, width=w,
                                               points=np.abs(off).mean() / w, luma=float(image[y0:y1, x0:x1].mean())))
            ghosts += len([k for k in range(len(found)) if k not in used])
        n += 1
    assert n == len(truth["frames"]), f"{name}: {n} frames, truth for {len(truth['frames'])}"
    bad = []
    print(f"\n{name}.mp4: {n} frames, {size[0]}×{size[1]}; every {STEP}rd judged: {faces} faces in the truth, "
          f"{missed} not detected, {ghosts} detections without truth")
    if seen:
        print("| visit | frames | expected | detected | widest | IoU | point error | judged frames | cosine to the person | best other (mean) | "
              "pair live (mean, share) | facenox (mean, share) | verdict |\n|---|---|---|---|---|---|---|---|---|---|---|---|---|")
    for i, rows in seen.items():
        v = truth["visits"][i]
        hit = [r for r in rows if r["box"] is not None]
        good = [r for r in hit if r["width"] >= SMALLEST and abs(r["row"]["yaw"]) <= TURN_LIMIT and r["luma"] >= DARK_LIMIT]
        who = f"{v['person']} {v['kind']}"
        line = f"| {who} | {v['first_frame']}–{v['last_frame']} | {v['expected']} | {len(hit)}/{len(rows)} "
        if hit:
            line += (f"| {max(r['width'] for r in hit):.0f} px | {np.mean([r['iou'] for r in hit]):.2f} | "
                     f"{np.mean([r['points'] for r in hit]) * 100:.1f} % ")
        else:
            line += "| – | – | – "
        if not good:
            widest = max((r["row"]["box"][2] - r["row"]["box"][0]) for r in rows)
            turned = np.median([abs(r["row"]["yaw"]) for r in rows])
            verdict = "too-far" if widest < SMALLEST else "turned-away" if turned > TURN_LIMIT else "dark"
            line += f"| 0 | – | – | – | – | {verdict} |"
        else:
            fused = [nets.unit(np.mean([r["e"][k] for r in good], 0)) for k in range(2)]
            own = [[float(r["e"][k] @ means[v["person"]][k]) for r in good] for k in range(2)]
            other = [max(float(fused[k] @ m[k]) for j, m in means.items() if j != v["person"]) for k in range(2)]
            enrolled = {j: np.mean([float(fused[k] @ means[j][k]) for k in range(2)]) for j in truth["enrolled"]}
            pair, nox = np.array([r["pair"] for r in good]), np.array([r["nox"] for r in good])
            live = pair.mean() > LIVE and nox.mean() > LIVE
            best = max(enrolled, key=enrolled.get)
            verdict = "spoof" if not live else "granted" if enrolled[best] > MATCH and best == v["person"] else "unknown"
            line += (f"| {len(good)} | {np.mean(own[0]):.2f} ({min(own[0]):.2f}) / {np.mean(own[1]):.2f} ({min(own[1]):.2f}) | "
                     f"{other[0]:.2f} / {other[1]:.2f} | {pair.mean():.2f}, {(pair > LIVE).mean() * 100:.0f} % | "
                     f"{nox.mean():.2f}, {(nox > LIVE).mean() * 100:.0f} % | {verdict} |")
        print(line)
        if verdict != v["expected"]:
            bad.append(f"{name}: {who} should be {v['expected']} and is {verdict}")
    return bad


def main():
    wanted = sys.argv[1:]
    gallery, lowest = photos()
    bad = []
    if not wanted or "people" in wanted:
        bad += check_people(gallery, lowest)
    for path in sorted(nets.HERE.glob("*.json")):
        if not wanted or path.stem in wanted:
            bad += check_clip(path.stem, gallery)
    print("\n" + ("\n".join(bad) if bad else "all as the truth says"))
    return 1 if bad else 0


if __name__ == "__main__":
    raise SystemExit(main())
