"""The clips and their ground truth.

    python clips.py             # all clips
    python clips.py door night  # some

Each clip is a list of visits on a time line; a visit gives, for its own time, the meshes to draw and
what a perfect observer would say about them. See README.md for the schema of the JSON.
"""
from dataclasses import dataclass, field
import json
import subprocess
import sys

import numpy as np

import networks as nets
import people
import scene
from face_model import seed_of
from figure import CM, CAMERA_HEIGHT, EYE_HEIGHT, Pose, smoothstep
from render import HEIGHT, WIDTH, draw

FPS = 30
OFF = 275.0     # centimetres to the side that are out of sight where a walk begins
FAR = 330.0     # and its depth


def blink(t, random_phase):
    """Opening of the eyes at time t: a blink of a quarter of a second every 1.6 to 2.6 s."""
    period = 2.1 + .5 * np.sin(random_phase)
    d = abs((t + .9 + random_phase) % period - period / 2)
    return float(np.clip((d - .04) / .09, 0, 1))


@dataclass
class Live:
    """A person who comes from a side, walks up, stays and goes."""
    person: str
    expected: str
    side: int = -1
    away: int = 1
    x: float = 0.0
    z: float = 78.0
    come: float = 2.4
    stay: float = 2.2
    go: float = 1.0
    yaw: float = 0.0            # where the head looks while the person stays
    late: float = 0.0
    kind: str = "live"
    bearer: str = None

    @property
    def seconds(self):
        return self.late + self.come + self.stay + self.go

    def pose(self, t):
        t = t - self.late
        if t < 0 or t > self.come + self.stay + self.go:
            return None
        phase = float(seed_of("gait", self.person).uniform(0, 6))
        wobble = lambda f, a, k: a * np.sin(2 * np.pi * f * t + phase * (1 + k))
        pose = Pose(eyes=blink(t, phase), yaw=wobble(.31, 4.0, 0), pitch=wobble(.43, 2.0, 1), roll=wobble(.27, 1.6, 2),
                    mouth=max(0.0, wobble(.35, .35, 1)), smile=wobble(.22, .45, 2) + .15)
        if t < self.come:
            u = t / self.come
            path = lambda u: ((1 - u) ** 1.6, 1 - np.sin(u * np.pi / 2))
            a, b = path(u)
            a2, b2 = path(min(u + .02, 1.0))
            x0 = self.side * OFF
            pose.x, pose.z = self.x + (x0 - self.x) * a, self.z + (FAR - self.z) * b
            dx, dz = (x0 - self.x) * (a2 - a), (FAR - self.z) * (b2 - b)
            heading = np.degrees(np.arctan2(dx, -dz + 1e-6)) if abs(dx) + abs(dz) > 1e-6 else 0.0
            fade = smoothstep(1.0, .72, u)
            pose.body = float(np.clip(heading, -60, 60) * fade)
            pose.yaw += float(np.clip(.42 * heading, -25, 25) * smoothstep(1.0, .6, u))
            pose.stride = 2 * np.pi * 1.9 * t * .5 * fade + 0.0
            pose.y = float(-2.0 * abs(np.sin(np.pi * 1.9 * t)) * fade)
        elif t < self.come + self.stay:
            s = t - self.come
            pose.x, pose.z = self.x + 1.2 * np.sin(1.7 * s), self.z + 1.5 * np.sin(1.1 * s)
        else:
            s = self.come + self.stay
            u = (t - s) / self.go
            pose.x = self.x + 1.2 * np.sin(1.7 * self.stay) + self.away * (190 - self.away * self.x) * u ** 1.7
            pose.z = self.z + 1.5 * np.sin(1.1 * self.stay) + 75 * u ** 1.7
            pose.yaw += self.away * 62 * smoothstep(0, .45, u)
            pose.body = self.away * 80 * smoothstep(0, .5, u)
            pose.stride = 2 * np.pi * 1.9 * (t - s) * .5
            pose.y = float(-2.0 * abs(np.sin(np.pi * 1.9 * (t - s))) * smoothstep(0, .3, u))
        if self.yaw:
            turned = self.yaw * smoothstep(0, .5, t) if t < self.come + self.stay else self.yaw
            pose.yaw = turned + wobble(.31, 5.0, 0)
            pose.body = pose.body if t < self.come else self.yaw * .35
        return pose

    def at(self, t):
        pose = self.pose(t)
        if pose is None:
            return [], []
        meshes, truth = people.figure(self.person).meshes(pose)
        return meshes, [dict(person=self.person, kind="live", **truth)]


@dataclass
class Held(Live):
    """Somebody who holds a phone or a sheet with `person`'s photo before the own face."""

    def picture(self):
        f = people.figure(self.person)
        size, face = (1102, 350) if self.kind == "phone" else (720, 320)
        photo, truth, m = scene.portrait(f, Pose(z=49, y=EYE_HEIGHT + f.look.tall - CAMERA_HEIGHT + 3, yaw=2, smile=.4), scene.DAY, (150, 165, 170) if self.kind == "phone" else (205, 205, 200), size, face)
        photo = np.clip(photo, 0, 255)
        bearer = people.figure(self.bearer)
        corners = np.float32(truth["box"]).reshape(2, 2) @ m[:, :2].T + m[:, 2]
        five = np.float32(truth["points"]) @ m[:, :2].T + m[:, 2]
        if self.kind == "phone":
            texture, shift, cm = scene.phone_texture(photo), np.float32([18 - (1102 - 556) // 2, 65]), scene.PHONE_CM
        else:
            texture, shift, cm = scene.paper_texture(photo), np.float32([45 - 90, 65.5]), scene.PAPER_CM
        return scene.HeldPicture(texture, cm, corners + shift, five + shift, self.kind == "paper",
                                 bearer.skin_colour, bearer.look.coat)

    def at(self, t):
        pose = self.pose(t)
        if pose is None:
            return [], []
        if not hasattr(self, "_held"):
            self._held = self.picture()
        pose.arm = "up"
        turned = pose.yaw
        leaving = t > self.late + self.come + self.stay
        pose.yaw = 0.0
        bearer = people.figure(self.bearer)
        meshes, _ = bearer.meshes(pose)
        reach = 46.0 if self.kind == "phone" else 33.0
        z = pose.z - reach
        eye = CAMERA_HEIGHT - (EYE_HEIGHT + bearer.look.tall) + pose.y
        k = z / pose.z
        x, y = pose.x * k, (eye + 3.0) * k
        sway = lambda f, a: a * np.sin(2 * np.pi * f * t + a)
        more, truth = self._held.meshes(x + sway(.7, .35), y + sway(.9, .3), z, yaw=.25 * turned * (not leaving) + sway(.4, 4), pitch=sway(.5, 3),
                                        roll=3 + sway(.37, 3))
        return meshes + more, [dict(person=self.person, kind=self.kind, **truth)]


@dataclass
class Turning(Live):
    """A person who looks into the camera, turns the head by `turn` degrees (positive towards the image's right), and looks back."""
    turn: float = 32.0
    wait: float = 1.6

    def pose(self, t):
        pose = super().pose(t)
        s = t - self.late - self.come - self.wait
        if pose is not None and 0 <= s <= 2.2 and t < self.late + self.come + self.stay:
            pose.yaw += self.turn * float(np.sin(np.pi * s / 2.2) ** .7)
        return pose


@dataclass
class HeldTurning(Held):
    """A phone or a sheet that is turned before the camera as a head would be: to both sides by `turn` degrees, then up and down."""
    turn: float = 40.0

    def at(self, t):
        pose = self.pose(t)
        s = t - self.late - self.come - .8
        if pose is None or not 0 <= s <= self.stay - .8:
            return super().at(t)
        if not hasattr(self, "_held"):
            self._held = self.picture()
        swing = self.turn * float(np.sin(2 * np.pi * .5 * s))
        sideways = s < (self.stay - .8) / 2
        held = self._held

        class Swung:
            def meshes(_, x, y, z, yaw, pitch, roll):
                return held.meshes(x, y, z, yaw=swing if sideways else yaw, pitch=pitch if sideways else swing, roll=roll)

        self._held = Swung()
        try:
            return super().at(t)
        finally:
            self._held = held


@dataclass
class Clip:
    """Visits, each with the second at which it begins, over a light and a camera."""
    name: str
    visits: list
    seconds: float
    enrolled: tuple = ("person-a", "person-c")
    light: object = field(default_factory=lambda: scene.DAY)
    night: bool = False
    camera: dict = field(default_factory=dict)
    crf: int = 26
    note: str = ""


def _line(*parts, gap=1.5):
    """Lays visits one after another with `gap` seconds of the empty hall between and around them."""
    now, out = gap, []
    for part in parts:
        group = part if isinstance(part, tuple) else (part,)
        out += [(now, v) for v in group]
        now += max(v.seconds for v in group) + gap
    return out, now


def clips():
    door, door_s = _line(Live("person-a", "granted", side=-1, away=1),
                         Live("person-b", "unknown", side=1, away=-1),
                         Held("person-a", "spoof", kind="phone", bearer="person-b", side=1, away=1, come=2.2, stay=2.4, go=.9),
                         Held("person-a", "spoof", kind="paper", bearer="person-b", side=-1, away=-1, come=2.2, stay=2.4, go=.9),
                         (Live("person-a", "granted", side=-1, away=-1, x=-25, z=92, stay=2.8),
                          Live("person-c", "granted", side=1, away=1, x=25, z=96, late=.5, stay=2.6)))
    away, away_s = _line(Live("person-a", "turned-away", side=-1, away=1, yaw=68, stay=3.0), gap=1.0)
    far, far_s = _line(Live("person-a", "too-far", side=-1, away=1, x=30, z=420, come=2.5, stay=3.0, go=2.0), gap=1.0)
    dark, dark_s = _line(Live("person-a", "dark", side=1, away=-1, stay=3.0), gap=1.0)
    night, night_s = _line(Live("person-a", "granted", side=1, away=-1, stay=2.6), Live("person-b", "unknown", side=-1, away=1, stay=2.6))
    turn, turn_s = _line(Turning("person-a", "unknown", side=-1, away=1, stay=4.4), gap=1.0)
    heads, heads_s = _line(*(Turning(person, "granted", side=-1, away=1, stay=4.4, turn=turn)
                             for person, turn in (("person-b", 30.0), ("person-c", -30.0))))
    pictures, pictures_s = _line(*(HeldTurning(person, "spoof", kind=kind, bearer=bearer, stay=4.8)
                                   for person, bearer, kind in (("person-a", "person-b", "phone"), ("person-c", "person-a", "paper"))))
    return [
        Clip("turn-left", turn, turn_s, enrolled=(), note="somebody looks into the camera, then to the own left, and back"),
        # For measuring alone (`faceid eval motion`): they are not shipped.
        Clip("turning-heads", heads, heads_s, note="two people turn their heads, one to each side"),
        Clip("turning-pictures", pictures, pictures_s, note="phones and sheets of paper are turned before the camera as a head would be"),
        Clip("door", door, door_s, note="A, then B, A on a phone, A on paper, A and C together"),
        Clip("turned-away", away, away_s, note="A walks up and looks aside all the time"),
        Clip("too-far", far, far_s, note="A passes at the far end of the hall"),
        Clip("dark", dark, dark_s, camera=dict(gain=.04, grain=2.6, black=5), note="A in an unlit hall"),
        Clip("night", night, night_s, light=scene.NIGHT, night=True, camera=dict(gain=.92, grain=3.2, black=3),
             note="A, then B, by one warm lamp"),
        Clip("idle", [], 60.0, note="nobody at all, for idle figures"),
    ]


def _row(entry):
    """A truth entry for the file, or None where too little of the face is in the picture."""
    x0, y0, x1, y1 = entry["box"]
    w = min(x1, WIDTH) - max(x0, 0)
    h = min(y1, HEIGHT) - max(y0, 0)
    if w <= 0 or h <= 0 or w * h < .7 * (x1 - x0) * (y1 - y0) or abs(entry["yaw"]) > 85:
        return None
    return dict(person=entry["person"], kind=entry["kind"], box=[round(float(v), 1) for v in (x0, y0, x1, y1)],
                points=[[round(float(v), 1) for v in p] for p in entry["points"]], yaw=round(float(entry["yaw"]), 1))


def frames(clip):
    """Yields each frame of a clip with its truth entries."""
    hall = scene.hall()
    if clip.night:
        hall = scene.night_hall(hall)
    camera = scene.Camera(int(seed_of("camera", clip.name).integers(1 << 31)), **clip.camera)
    for n in range(round(clip.seconds * FPS)):
        t = n / FPS
        meshes, entries = [], []
        for i, (start, visit) in enumerate(clip.visits):
            m, e = visit.at(t - start)
            meshes += m
            entries += [(i, x) for x in e]
        picture = hall.copy()
        if meshes:
            draw(picture, meshes, clip.light)
        rows = []
        for i, e in entries:
            row = _row(e)
            if row:
                rows.append(dict(visit=i, **row))
        yield camera.shoot(picture, 1 + .006 * np.sin(.9 * t)), rows


def write(clip):
    out = nets.HERE / f"{clip.name}.mp4"
    pipe = subprocess.Popen(["ffmpeg", "-y", "-loglevel", "error", "-f", "rawvideo", "-pix_fmt", "bgr24", "-s", f"{WIDTH}x{HEIGHT}",
                             "-r", str(FPS), "-i", "-", "-c:v", "libx264", "-profile:v", "main", "-preset", "medium", "-crf",
                             str(clip.crf), "-g", "90", "-bf", "2", "-pix_fmt", "yuv420p", "-colorspace", "bt709",
                             "-vf", "scale=out_color_matrix=bt709", "-threads", "1", "-fflags", "+bitexact",
                             "-flags:v", "+bitexact", "-movflags", "+faststart", str(out)], stdin=subprocess.PIPE)
    truth = []
    for picture, rows in frames(clip):
        pipe.stdin.write(picture.tobytes())
        truth.append(rows)
    pipe.stdin.close()
    if pipe.wait():
        raise SystemExit(f"ffmpeg failed on {out}")
    visits = []
    for i, (_, v) in enumerate(clip.visits):
        seen = [n for n, rows in enumerate(truth) if any(r["visit"] == i for r in rows)]
        visits.append(dict(person=v.person, kind=v.kind, bearer=v.bearer, first_frame=seen[0], last_frame=seen[-1], expected=v.expected))
    head = dict(schema=1, clip=out.name, note=clip.note, width=WIDTH, height=HEIGHT, fps=FPS, enrolled=list(clip.enrolled), visits=visits)
    lines = ",\n".join("  " + json.dumps(rows, separators=(",", ":")) for rows in truth)
    text = json.dumps(head, indent=1)[:-2] + ',\n "frames": [\n' + lines + "\n ]\n}\n"
    (nets.HERE / f"{clip.name}.json").write_text(text)
    print(f"{out.name}: {len(truth)} frames, {out.stat().st_size / 1024:.0f} kB", flush=True)


if __name__ == "__main__":
    wanted = sys.argv[1:]
    for c in clips():
        if not wanted or c.name in wanted:
            write(c)
