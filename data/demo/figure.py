"""A person as meshes: head with the sampled face, hair, neck, clothes, arms and legs.

Head-local coordinates: texture-frame pixels (120 px = one mean face of 14.2 cm), origin between the
eyes, x to the image's right, y down, depth towards the viewer positive ("forward"). `Figure.meshes`
turns them into world centimetres (see render.py).
"""
from dataclasses import dataclass

import cv2
import numpy as np
from scipy.interpolate import CubicSpline, PchipInterpolator

from face_model import CENTRE, SIZE, crown, seed_of, tps
from render import grid_triangles, mesh, normals, rotation

CM = 14.2 / 120            # centimetres a texture pixel
SPOKES, RINGS, BACK = 144, 46, 18
UP = 2                     # the skin texture is drawn at twice the model's size

# Depth of the 68 points before the plane of the ears, in texture pixels: generic head proportions
# (ear to nose tip 11.5 cm, to the chin 9.5 cm, to the outer eye corner 7.5 cm).
_JAW = [24, 24, 25, 29, 37, 49, 62, 72, 77]
_DEPTH = np.float32(_JAW + _JAW[-2::-1] + [63, 75, 82, 85, 86, 86, 85, 82, 75, 63]
                    + [84, 90, 97, 103, 86, 90, 92, 90, 86]
                    + [65, 73, 76, 74, 74, 72] + [74, 76, 73, 65, 72, 74]
                    + [74, 83, 88, 89, 88, 83, 74, 82, 86, 87, 86, 82]
                    + [75, 84, 86, 84, 75, 84, 85, 84])
_CROWN_DEPTH = np.float32([24, 22, 18, 16, 17, 18, 17, 16, 18, 22, 24, 50, 71, 78, 71, 50])


def smoothstep(a, b, x):
    t = np.clip((x - a) / (b - a), 0, 1)
    return t * t * (3 - 2 * t)


class HeadGrid:
    """The head's vertices as a linear map of a face's 68 points: spokes around the nose, rings out
    to the silhouette, then rings over the back of the head."""

    def __init__(self, mean_points):
        base = np.vstack([mean_points, crown(mean_points)]).astype(np.float64)
        outline = np.vstack([base[68:79], base[1:16]])
        outline = np.vstack([outline, outline[:1]])
        length = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(outline, axis=0), axis=1))])
        at = np.linspace(0, length[-1], SPOKES, endpoint=False)
        edge = CubicSpline(length, outline, bc_type="periodic")(at)
        centre = np.array([CENTRE[0], CENTRE[1] + 8])
        r = np.linspace(0, 1, RINGS) ** .9
        self.uv = (centre + r[:, None, None] * (edge - centre)).reshape(-1, 2)
        self.carry = tps(base, self.uv, 1e-4)
        depth = np.concatenate([_DEPTH, _CROWN_DEPTH])
        depth = (depth + depth[np.r_[np.array(_mirror()), 68 + np.arange(10, -1, -1), 83, 82, 81, 80, 79]]) / 2
        self.depth = tps(base, self.uv, 2e-3) @ depth
        self.front = RINGS * SPOKES
        self.triangles = grid_triangles(RINGS + BACK, SPOKES, closed=True)
        # Texture places of the vertices behind the silhouette: just inside it.
        back = np.repeat((centre + .97 * (edge - centre))[None], BACK, 0).reshape(-1, 2)
        self.texture_uv = np.vstack([self.uv, back])

    def vertices(self, points):
        """Head-local x, y, forward of every vertex for a face's 68 points."""
        points = np.float64(points)
        eye = points[36:48].mean(0)
        flat = self.carry @ np.vstack([points, crown(points)]) - eye
        front = np.column_stack([flat, self.depth])
        edge = front[-SPOKES:]
        q = np.linspace(0, np.pi / 2, BACK + 1)[1:, None, None]
        # The skull reaches far back above the ears; below them the head ends in the neck.
        low = smoothstep(10, 80, edge[:, 1])[:, None]
        centre = np.array([0.0, -18.0, 0.0]) * (1 - low) + np.array([0.0, 52.0, 0.0]) * low
        reach = 92 * (1 - low) + 30 * low
        flatness = edge - centre
        flatness[:, 2] = 0
        back = centre + flatness * np.cos(q) ** .75 * [1, 1, 0]
        back[..., 2] = edge[:, 2] * (1 - np.sin(q[..., 0])) - (reach * np.sin(q))[..., 0]
        return np.vstack([front, back.reshape(-1, 3)])


def _mirror():
    from face_model import MIRROR
    return MIRROR


@dataclass
class Look:
    """What a person wears and how the hair grows; colours are BGR 0..255."""
    hair: str = "short"             # short, cropped, medium, long, bun, receding, bald
    hair_colour: tuple = (30, 38, 48)
    grey: float = 0.0
    coat: tuple = (70, 60, 50)
    shirt: tuple = (200, 200, 200)
    style: str = "jacket"           # jacket, jumper, coat
    iris: tuple = (40, 60, 80)
    build: float = 1.0              # shoulder width
    tall: float = 0.0               # centimetres above 1.64 m at the eyes
    glasses: bool = False


@dataclass
class Pose:
    """Where a person stands and what the face does.

    x and z in centimetres (of the head), y is added to the eyes' height; degrees of head yaw,
    pitch and roll; body yaw; eyes 1 open … 0 shut; mouth and smile in model deviations."""
    x: float = 0.0
    z: float = 100.0
    y: float = 0.0
    yaw: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0
    body: float = 0.0
    eyes: float = 1.0
    mouth: float = 0.0
    smile: float = 0.0
    stride: float = 0.0
    arm: str = "down"               # down, or up: holding something before the face


CAMERA_HEIGHT = 152.0               # the door camera above the floor
EYE_HEIGHT = 160.0


def _noise(random, height, width, sx, sy):
    n = cv2.GaussianBlur(random.standard_normal((height, width)).astype(np.float32), (0, 0),
                         sigmaX=sx, sigmaY=sy)
    return n / n.std()


def skin_texture(model, face, random, look):
    """Skin for the whole head from a model texture: filled beyond the model's mask, sharpened, with
    pores and eyes. (SIZE·UP)² × 4 float BGR, and the skin's mean colour."""
    t = face.texture
    mean = model.mean_points
    mask = cv2.erode(model.skin_mask, np.ones((13, 13), np.uint8)).astype(np.float32)
    # The forehead of the model mixes fringes of hair into the skin: keep it up to the brows only.
    brow = mean[17:27, 1].min()
    ys = np.arange(SIZE, dtype=np.float32)[:, None]
    mask *= smoothstep(brow - 16, brow - 5, ys)
    edge = np.abs(np.arange(SIZE) - CENTRE[0])[None]
    mask *= 1 - smoothstep(44, 52, edge) * smoothstep(brow + 40, brow - 10, ys)
    # Skin colour from the cheeks and the nose, pulled half way to the usual skin hues.
    cheek = np.zeros((SIZE, SIZE), np.uint8)
    for p in (mean[[1, 41, 31, 3]].mean(0), mean[[15, 46, 35, 13]].mean(0)):
        cv2.circle(cheek, tuple(int(v) for v in p), 12, 1, -1)
    lab = cv2.cvtColor(np.clip(t / 255, 0, 1).astype(np.float32), cv2.COLOR_BGR2LAB)
    l, a, b = (np.median(lab[..., k][cheek > 0]) for k in range(3))
    usual_a, usual_b = 13.0 - .03 * (l - 60), 17.0 - .05 * (l - 60)
    lab[..., 1] += .7 * (usual_a - a)
    lab[..., 2] += .7 * (usual_b - b)
    t = cv2.cvtColor(lab, cv2.COLOR_LAB2BGR) * 255
    skin = np.array([np.median(t[..., k][cheek > 0]) for k in range(3)], np.float32)

    t = cv2.resize(t, None, fx=UP, fy=UP, interpolation=cv2.INTER_CUBIC)
    mask = cv2.resize(mask, None, fx=UP, fy=UP, interpolation=cv2.INTER_LINEAR)
    soft = cv2.GaussianBlur(t, (0, 0), 2.2 * UP)
    fine = cv2.GaussianBlur(t, (0, 0), .8 * UP)
    t = t + .75 * (t - soft) + .5 * (t - fine)
    # Fill outwards from what the model knows, smoothly.
    inside = cv2.erode((mask > .5).astype(np.float32), np.ones((9, 9), np.uint8))
    inside *= cv2.resize(_plain_skin(model).astype(np.float32), None, fx=UP, fy=UP, interpolation=cv2.INTER_NEAREST)
    fill, weight = np.zeros_like(t), np.zeros_like(mask)
    for sigma, trust in ((10, 1.0), (28, .05), (70, .002)):
        fill += trust * cv2.GaussianBlur(t * inside[..., None], (0, 0), sigma * UP / 2)
        weight += trust * cv2.GaussianBlur(inside, (0, 0), sigma * UP / 2)
    fill = fill / (weight[..., None] + 1e-6)
    n = SIZE * UP
    mottled = .5 * _noise(random, n, n, 9, 9) + .5 * _noise(random, n, n, 3, 3)
    fill = fill * (1 + .018 * mottled[..., None])
    mask = cv2.GaussianBlur(mask, (0, 0), 4 * UP / 2)[..., None]
    t = t * mask + fill * (1 - mask)
    pores = _noise(random, n, n, .9, .9) * .6 + _noise(random, n, n, 1.8, 1.8) * .4
    t *= 1 + .022 * pores[..., None]
    t = _draw_eyes(t, mean * UP, look)
    return np.dstack([np.clip(t, 2, 250), np.full((n, n), 255)]).astype(np.float32), skin


def _plain_skin(model):
    """Where the model's skin has no brow, eye, nostril, lip or jaw edge."""
    p = model.mean_points
    m = np.ones((SIZE, SIZE), np.uint8)
    for part, grow in ((p[17:22], 5), (p[22:27], 5), (p[36:42], 5), (p[42:48], 5), (p[48:60], 7), (p[31:36], 6)):
        blot = np.zeros_like(m)
        cv2.fillConvexPoly(blot, cv2.convexHull(part.round().astype(np.int32)), 1)
        m[cv2.dilate(blot, np.ones((2 * grow + 1,) * 2, np.uint8)) > 0] = 0
    return m


def _lids(points, left):
    """Functions x → y of the upper and the lower lid of one eye."""
    k = [36, 37, 38, 39, 40, 41] if left else [42, 43, 44, 45, 46, 47]
    upper = points[k[:4]]
    lower = points[[k[0], k[5], k[4], k[3]]]
    return (CubicSpline(upper[:, 0], upper[:, 1]), CubicSpline(lower[:, 0], lower[:, 1]),
            upper[0, 0], upper[3, 0])


def _draw_eyes(t, points, look):
    """Irises with a rim, a pupil and a highlight, and a lash line: what PCA leaves as a blur."""
    ys, xs = np.mgrid[:t.shape[0], :t.shape[1]].astype(np.float32)
    iris = np.float32(look.iris)
    for left in (True, False):
        upper, lower, x0, x1 = _lids(points, left)
        width = x1 - x0
        cx = (x0 + x1) / 2
        cy = float(upper(cx) * .52 + lower(cx) * .48)
        span = np.clip(xs, x0, x1)
        yu, yl = upper(span), lower(span)
        inside = smoothstep(-1.0, 1.5, ys - yu) * smoothstep(-1.0, 1.5, yl - ys)
        inside *= smoothstep(x0, x0 + 3, xs) * smoothstep(x1, x1 - 3, xs)
        r = np.hypot(xs - cx, ys - cy)
        radius = .215 * width
        white = t.mean(2, keepdims=True) * .55 + t * .35 + 22
        t = t * (1 - .4 * inside[..., None]) + white * .4 * inside[..., None]
        disc = smoothstep(radius + 1, radius - 1, r) * inside
        shade = iris * (.75 + .45 * np.clip((ys - cy) / radius, -1, 1))[..., None]
        shade = shade * (1 - .55 * smoothstep(radius * .72, radius, r))[..., None]
        shade = shade * (1 - .9 * smoothstep(radius * .48, radius * .36, r))[..., None]
        t = t * (1 - .85 * disc[..., None]) + shade * .85 * disc[..., None]
        spot = np.exp(-((xs - cx - .3 * radius) ** 2 + (ys - cy + .35 * radius) ** 2) / (2 * (.17 * radius) ** 2))
        t = t + 170 * (spot * disc)[..., None]
        lash = np.exp(-((ys - yu + .5) / 1.4) ** 2) * smoothstep(x0 - 2, x0 + 4, xs) * smoothstep(x1 + 2, x1 - 4, xs)
        t = t * (1 - .55 * lash[..., None])
    return t


def shut_eyes(texture, points, opening):
    """Lowers the upper lids of a skin texture: `opening` 1 leaves it, 0 shuts the eyes."""
    if opening > .98:
        return texture
    out = texture.copy()
    for left in (True, False):
        upper, lower, x0, x1 = _lids(points, left)
        a, b = int(x0) - 4, int(x1) + 5
        c, d = int(points[36:48, 1].min()) - 30, int(points[36:48, 1].max()) + 12
        ys, xs = np.mgrid[c:d, a:b].astype(np.float32)
        span = np.clip(xs, x0, x1)
        yu, yl = upper(span).astype(np.float32) - 1.5, lower(span).astype(np.float32) + .5
        top = yu - 22
        lid = yu + (1 - opening) * np.maximum(yl - yu, 0)
        skin = top + (ys - top) * (yu - 2 - top) / np.maximum(lid - top, 1)
        source = np.where((ys > top) & (ys <= lid), skin, ys)
        patch = cv2.remap(texture, xs, source.astype(np.float32), cv2.INTER_LINEAR)
        lash = np.exp(-((ys - lid) / 1.6) ** 2) * smoothstep(x0 - 1, x0 + 5, xs) * smoothstep(x1 + 1, x1 - 5, xs)
        patch[..., :3] *= (1 - .6 * lash)[..., None]
        out[c:d, a:b] = patch
    return out


def strand_texture(random, colour, grey, size=512, width=1536):
    """Hair along the v axis: BGR with strand-to-strand variation, strand height in alpha."""
    height = .8 * _noise(random, size, width, 1.1, 40) + .5 * _noise(random, size, width, 3.5, 70)
    height += .4 * _noise(random, size, width, .8, 9)
    rank = np.argsort(np.argsort(height.reshape(-1))).reshape(size, width) / (size * width)
    tone = 1 + .20 * _noise(random, size, width, 1.2, 45) + .10 * _noise(random, size, width, 12, 50)
    base = np.ones((size, width, 3), np.float32) * np.float32(colour)
    if grey:
        streak = _noise(random, size, width, 1.5, 60)
        share = smoothstep(-.8, .8, streak + 2.4 * (grey - .5))
        silver = np.float32((150, 152, 152))
        base = base * (1 - share[..., None]) + silver * share[..., None]
        base = base * (1 - .5 * grey) + silver * .5 * grey
    bgr = base * np.clip(tone, .35, 1.8)[..., None]
    return np.dstack([np.clip(bgr, 3, 240), rank * 255]).astype(np.float32)


def tube(rings, colour=None, texture=None, segments=40, shade=None, smooth=4):
    """A mesh around a line: `rings` rows of x y z half-width half-depth; texture u runs around it."""
    rings = np.float64(rings)
    if smooth > 1:
        knots = np.arange(len(rings))
        at = np.linspace(0, len(rings) - 1, (len(rings) - 1) * smooth + 1)
        if shade is not None:
            shade = np.interp(at, knots, shade)
        rings = PchipInterpolator(knots, rings)(at)
    angle = np.linspace(-np.pi, np.pi, segments + 1)
    ca, sa = np.cos(angle), np.sin(angle)
    cross = np.stack([np.sign(sa) * abs(sa) ** .85, np.zeros_like(sa), -np.sign(ca) * abs(ca) ** .85], -1)
    v = rings[:, None, :3] + cross[None] * np.stack([rings[:, 3], rings[:, 3] * 0, rings[:, 4]], -1)[:, None]
    rows = len(rings)
    uv = None
    if texture is not None:
        h, w = texture.shape[:2]
        u = np.linspace(0, w - 1.01, segments + 1)
        y = (rings[:, 1] - rings[0, 1]) / (rings[-1, 1] - rings[0, 1]) * (h - 1.01)
        uv = np.stack(np.meshgrid(u, y), -1).reshape(-1, 2)
    s = None if shade is None else np.repeat(np.float32(shade), segments + 1)
    return mesh(v.reshape(-1, 3), grid_triangles(rows, segments + 1), uv, texture, colour, s)


class Figure:
    """A person ready to be posed. `z` are joint coefficients of the face model."""

    def __init__(self, model, z, name, look):
        self.model, self.name, self.look = model, name, look
        random = seed_of("figure", name)
        self.grid = HeadGrid(model.mean_points)
        self.points_uv = model.mean_points * UP
        self.asymmetry = .9 * random.standard_normal((68, 2)) * [[.5, .35]]
        self.asymmetry[36:48] *= .4
        side = .35 * random.standard_normal(len(model.side_sd))
        side[:3] *= .2
        base = model.face(z, side)
        self.base_points = base.points
        self.skin, self.skin_colour = skin_texture(model, base, random, look)
        # Expressions are small: what they change in points and texture is linear.
        here = model.attributes(z)
        self.moves = {}
        for key, i in (("mouth", 0), ("smile", 1)):
            moved = model.face(model.posed(z, **{key: here[i] + 1}), side)
            delta = cv2.GaussianBlur((moved.texture - base.texture) * model.skin_mask[..., None], (0, 0), .7)
            delta *= smoothstep(60, 45, np.abs(np.arange(SIZE) - CENTRE[0]))[None, :, None]
            delta = cv2.resize(delta, None, fx=UP, fy=UP, interpolation=cv2.INTER_LINEAR)
            self.moves[key] = (moved.points - base.points, delta)
        self.hair_texture = strand_texture(random, look.hair_colour, look.grey)
        self.cloth = self._cloth(random)
        self.cache = {}

    # -- parts in head-local pixels --------------------------------------------------------

    def _expression(self, pose):
        points = self.base_points + self.asymmetry
        texture = self.skin
        if pose.mouth or pose.smile:
            texture = texture.copy()
            for key in ("mouth", "smile"):
                k = getattr(pose, key)
                points = points + k * self.moves[key][0]
                texture[..., :3] += k * self.moves[key][1]
            texture[..., :3] = np.clip(texture[..., :3], 2, 250)
        return points, shut_eyes(texture, self.points_uv, pose.eyes)

    def _head(self, pose):
        points, texture = self._expression(pose)
        v = self.grid.vertices(points)
        t = self.grid.triangles
        uv = self.grid.texture_uv * UP
        # Shadow under the chin and behind the ears.
        shade = np.ones(len(v))
        shade[self.grid.front:] = .72
        rim = slice(self.grid.front - 4 * SPOKES, self.grid.front)
        shade[rim] = np.repeat([.97, .94, .9, .84], SPOKES)
        return points, v, mesh(v, t, uv, texture, shade=shade, gain=.75)

    def _ears(self, points):
        eye = points[36:48].mean(0)
        out = []
        for side, k in ((-1, 0), (1, 16)):
            x = points[k, 0] - eye[0]
            a = np.linspace(0, 2 * np.pi, 25)
            r = np.linspace(0, 1, 7)[:, None]
            tall, deep = 27.0, 15.0
            y = 14 + r * tall * np.sin(a) * (1 - .12 * np.sin(a))
            f = -6 + r * deep * np.cos(a) - 3 * r * np.sin(a)
            bulge = 7 * np.sqrt(np.clip(1 - r ** 2, 0, 1)) * np.ones_like(a) - 3 * (r < .55) + 0 * a
            outward = x + side * (bulge - 1 + .25 * (-f))
            v = np.stack([outward, y + 0 * f, f], -1).reshape(-1, 3)
            shade = (np.where(r < .5, .68, .92) - .1 * (r > .9)) * np.ones_like(a)
            colour = self.skin_colour * [.93, .93, .98]
            out.append(mesh(v, grid_triangles(7, 25), colour=colour, shade=shade.reshape(-1)))
        return out

    def _hair(self, v):
        style = self.look.hair
        if style == "bald":
            return []
        top = v[:self.grid.front, 1].min()
        half = np.abs(v[:, 0]).max()
        centre = np.array([0.0, .32 * top, -8.0])
        height = v[:, 1] / top                       # 1 at the crown, 0 at the eyes, below negative
        aside = np.abs(v[:, 0]) / half
        front = {"short": .52, "cropped": .54, "medium": .47, "long": .54, "bun": .56, "receding": .84}[style]
        wave = .03 * np.sin(v[:, 0] / 9.0 + 1) + .02 * np.sin(v[:, 0] / 4.1)
        temple = smoothstep(.66, .92, aside)
        sideburn = {"cropped": .12, "receding": .05}.get(style, -.05)
        line = (front + wave + (.10 * smoothstep(.45, .66, aside) if style in ("short", "cropped", "receding") else -.05 * aside)) * (1 - temple) + sideburn * temple
        behind = smoothstep(14, -6, v[:, 2])
        line = line * (1 - behind) + -.62 * behind
        cover = .5 + np.clip((height - line) / .12, -.5, .5)
        thick = {"short": 8, "cropped": 3.5, "medium": 13, "long": 11, "bun": 7, "receding": 5}[style]
        thick = thick * (.55 + .6 * smoothstep(.2, 1, height)) * (1 - .45 * smoothstep(.9, 1.0, aside) * (height < .3))
        out = v - centre
        out /= np.linalg.norm(out, axis=1, keepdims=True)
        pole = np.array([.12, -.94, -.32])
        pole /= np.linalg.norm(pole)
        ahead = np.array([0, 0, 1.0]) - pole * pole[2]
        ahead /= np.linalg.norm(ahead)
        side = np.cross(pole, ahead)
        azimuth = np.arctan2(out @ side, out @ ahead)
        polar = np.arccos(np.clip(out @ pole, -1, 1))
        size, wide = self.hair_texture.shape[:2]
        uv = np.stack([(azimuth / (2 * np.pi) + .5) * (wide - 2), polar / np.pi * (size - 2)], 1)
        t = self.grid.triangles[cover[self.grid.triangles].max(1) > .3]
        # Below the strands the scalp has their colour, so that no skin shines through the seam.
        scalp = np.full((2, 2, 4), 255, np.float32)
        scalp[..., :3] = np.float32(self.look.hair_colour) * (.55 + .4 * self.look.grey)
        under = mesh(v + out * .6, t, uv * 0, scalp, cover=cover - .06, threshold=.5)
        t = t[np.ptp(uv[t, 0], axis=1) < wide / 3]
        shells = 12 if style != "cropped" else 7
        meshes = [under]
        for i in range(shells):
            k = i / (shells - 1)
            lift = v + out * (thick * k + 1.0)[:, None]
            lift[:, 1] += 2.0 * k * k * (thick / 10) * (height < .7)
            meshes.append(mesh(lift, t, uv, self.hair_texture, shade=np.full(len(v), .55 + .5 * k), cover=cover,
                               threshold=max(.02, .85 * k ** .8)))
        if style in ("long", "medium", "bun"):
            meshes += self._fall(v, half, top, style)
        return meshes

    def _fall(self, v, half, top, style):
        """Hair that hangs at the sides and behind, or a bun."""
        size, wide = self.hair_texture.shape[:2]
        if style == "bun":
            a, b = np.meshgrid(np.linspace(-np.pi, np.pi, 33), np.linspace(0, np.pi, 17))
            r = 30
            p = np.stack([r * np.sin(b) * np.sin(a), top * 1.02 - r * .8 * np.cos(b), -38 + r * np.sin(b) * np.cos(a)], -1)
            uv = np.stack([(a / (2 * np.pi) + .5) * (wide - 2), b / np.pi * (size - 2)], -1)
            return [mesh(p.reshape(-1, 3), grid_triangles(17, 33), uv.reshape(-1, 2), self.hair_texture)]
        low = 150.0 if style == "long" else 62.0
        rows = np.linspace(0, 1, 26)
        angle = np.radians(np.linspace(-118, 118, 81))          # around from behind, open in front
        meshes = []
        for i in range(7):
            k = i / 6
            spread = 1.0 + .05 * np.sin(rows * 3) + .10 * rows * (style == "long")
            x = (half * 1.02 + 7 * k)[..., None] if np.ndim(k) else (half * 1.0 + 8 * k)
            y = .35 * top + rows * (low - .35 * top) + (6 * np.sin(7 * rows) * 0)
            p = np.zeros((26, 81, 3))
            ease = smoothstep(0, .22, rows)[:, None]
            p[..., 0] = (x * spread)[:, None] * np.sin(angle) * (.93 + .07 * ease)
            p[..., 1] = y[:, None] + 6 * np.cos(angle * 6)[None] * (rows[:, None] > .9)
            p[..., 2] = -10 - (70 + 6 * k) * np.cos(angle)[None] * (1 - .25 * rows[:, None]) + 4 * rows[:, None]
            uv = np.stack(np.meshgrid((angle / (2 * np.pi) + .5) * (wide - 2), rows * (size * .8) + 40 + 11 * i), -1)
            cover = np.ones((26, 81))
            cover *= np.minimum(1, .5 + 6 * (1 - np.abs(angle) / np.abs(angle).max()))[None]
            cover *= np.minimum(1, .5 + 5 * (1 - rows))[:, None]
            shade = (.5 + .45 * k) * np.ones((26, 81))
            meshes.append(mesh(p.reshape(-1, 3), grid_triangles(26, 81), uv.reshape(-1, 2), self.hair_texture,
                               shade=shade.reshape(-1), cover=cover.reshape(-1), threshold=max(.03, .8 * k)))
        return meshes

    def _glasses(self, points, v):
        eye = points[36:48].mean(0)
        meshes = []
        a = np.linspace(0, 2 * np.pi, 41)
        for left in (True, False):
            c = points[36:42].mean(0) - eye if left else points[42:48].mean(0) - eye
            ring = []
            for r in (.94, 1.06):
                p = np.stack([c[0] + 21 * r * np.sign(np.cos(a)) * abs(np.cos(a)) ** .8,
                              c[1] + 2 + 15.5 * r * np.sign(np.sin(a)) * abs(np.sin(a)) ** .8,
                              90 - .006 * (c[0] + 21 * np.cos(a)) ** 2], -1)
                ring.append(p)
            meshes.append(mesh(np.vstack(ring), grid_triangles(2, 41), colour=(28, 26, 26)))
        x = np.linspace(-9, 9, 9)
        bridge = np.vstack([np.stack([x, -1 - 2 * np.cos(x / 6) + d, 92 + 0 * x], -1) for d in (-1.2, 1.2)])
        meshes.append(mesh(bridge, grid_triangles(2, 9), colour=(28, 26, 26)))
        for s in (-1, 1):
            inner = abs(points[36 if s < 0 else 45, 0] - eye[0]) + 10
            outer = np.abs(v[:, 0]).max() + 2
            f = np.linspace(78, 0, 12)
            x = s * (inner + (outer - inner) * smoothstep(78, 30, f))
            arm = np.vstack([np.stack([x, 0 * x - 2 + d, f], -1) for d in (-1.5, 1.5)])
            meshes.append(mesh(arm, grid_triangles(2, 12), colour=(28, 26, 26)))
        return meshes

    # -- clothes ---------------------------------------------------------------------------

    def _cloth(self, random, size=384):
        look = self.look
        base = np.ones((size, size, 3), np.float32) * np.float32(look.coat)
        fold = .07 * _noise(random, size, size, 9, 60) + .05 * _noise(random, size, size, 20, 16)
        weave = .035 * _noise(random, size, size, .8, .8)
        middle = size / 2
        ys, xs = np.mgrid[:size, :size].astype(np.float32)
        if look.style in ("jacket", "coat"):
            deep = size * (.30 if look.style == "jacket" else .18)
            open_ = np.abs(xs - middle) < np.maximum(0, 17 * (1 - ys / deep)) + .5
            base[open_] = look.shirt
            lapel = np.abs(np.abs(xs - middle) - np.maximum(0, 17 * (1 - ys / deep))) < 1.4
            base[lapel] = np.float32(look.coat) * .55
            if look.style == "jacket":
                edge = np.abs(np.abs(xs - middle) - (17 * (1 - ys / deep) + 12 * np.clip(1 - ys / (deep * .62), 0, 1))) < 1.0
                base[edge & (ys < deep * .62)] = np.float32(look.coat) * .65
            seam = (np.abs(xs - middle) < 1.0) & (ys >= deep)
            base[seam] = np.float32(look.coat) * .6
        else:
            base[ys < size * .025] = np.float32(look.coat) * .75
        base = cv2.GaussianBlur(base, (0, 0), .9)
        base *= (1 + fold + weave)[..., None]
        sleeve = np.float32(look.coat) * (1 + fold.T + weave)[..., None]
        self.sleeve = np.dstack([np.clip(sleeve, 2, 245), np.full((size, size), 255)]).astype(np.float32)
        return np.dstack([np.clip(base, 2, 245), np.full((size, size), 255)]).astype(np.float32)

    def _body(self, pose):
        """Torso, arms and legs in centimetres below the neck's root, depth away from the viewer."""
        b = self.look.build
        torso = [[0, -1, 0, 6.6, 6.2], [0, 1.5, 0, 7.6, 7.0], [0, 3.5, .5, 10.5, 8.2], [0, 5.5, .8, 14.2 * b, 9.0],
                 [0, 8, 1, 17.6 * b, 10.0], [0, 11, 1, 19.6 * b, 10.8], [0, 15, 1, 20.2 * b, 11.5], [0, 22, .5, 19.4 * b, 12],
                 [0, 32, .5, 18 * b, 11.8], [0, 45, 1, 17 * b, 11.5], [0, 58, 1, 18 * b, 12], [0, 72, 1, 18.5 * b, 12],
                 [0, 88, 1, 18 * b, 11.5]]
        shade = [.55, .72, .9] + [1] * 10
        meshes = [tube(torso, texture=self.cloth, segments=56, shade=shade)]
        swing = np.sin(pose.stride)
        for s in (-1, 1):
            if pose.arm == "up" and s > 0:
                arm = [[14.5 * b, 6.6, 1, .6, .8], [17.4 * b, 9.4, 1, 4.4, 5.6], [19.6 * b, 17, 0, 5.0, 5.6],
                       [20.0 * b, 27, -4, 4.6, 5.0], [18, 31, -12, 4.3, 4.3], [12, 30, -22, 4.0, 4.0]]
            else:
                k = swing * s
                arm = [[s * 14.5 * b, 6.6, 1, .6, .8], [s * 17.4 * b, 9.4, 1, 4.4, 5.6], [s * 19.4 * b, 15, 1 - k, 5.0, 5.8], [s * 21.0 * b, 27, 1 - 4 * k, 4.9, 5.4],
                       [s * 22.6 * b, 40, -6 * k, 4.6, 5.0], [s * 22.6 * b, 56, -4 - 11 * k, 3.9, 4.2]]
                palm = np.array(arm[-1][:3])
                hand = [[*(palm + [0, -1, 0]), 3.0, 3.4], [*(palm + [0, 4, -1]), 3.3, 4.2], [*(palm + [0, 10, -2]), 2.8, 3.8],
                        [*(palm + [0, 16, -2]), 1.4, 2.2]]
                meshes.append(tube(hand, colour=self.skin_colour * .9, segments=16))
            meshes.append(tube(arm, texture=self.sleeve, segments=22))
            k = swing * s
            leg = [[s * 9, 80, 1, 9, 10], [s * 9.4, 105, 1 - 9 * k, 7.5, 8.5], [s * 9.6, 146, 2 - 22 * k, 5.5, 6.5]]
            meshes.append(tube(leg, colour=(46, 42, 40), segments=18))
        return meshes

    # -- the whole -------------------------------------------------------------------------

    def meshes(self, pose):
        """World meshes of this pose and the truth: box, five points, yaw (see `truth`)."""
        points, v, head = self._head(pose)
        parts = [head] + self._ears(points) + self._hair(v)
        if self.look.glasses:
            parts += self._glasses(points, v)
        eye_y = CAMERA_HEIGHT - (EYE_HEIGHT + self.look.tall) + pose.y
        turn = rotation(pose.yaw, pose.pitch, pose.roll)
        pivot = np.array([0, 70.0, -4.0])
        lean = np.array([0, 0, 0])

        def head_world(local):
            p = (np.asarray(local) - pivot) * [1, 1, -1] * CM
            p = p @ turn.T + pivot * [1, 1, -1] * CM + lean
            return (p + [pose.x, eye_y, pose.z]).astype(np.float32)

        out = []
        centre = head_world(np.array([[0, 0, -5.0]]))[0]
        for m in parts:
            m.vertices = head_world(m.vertices)
            m.normals = normals(m.vertices, m.triangles, centre)
            out.append(m)
        # Neck: from under the jaw to the collar, following the head at its upper end.
        wide = 46.0 * (.35 + .65 * self.look.build)
        neck = []
        for k, y in zip(np.linspace(0, 1, 9), np.linspace(40, 156, 9)):
            flare = 1 + .28 * smoothstep(.55, 1.0, k)
            neck.append([0, y * CM, (14 - 3 * k) * CM, wide * CM * flare * (1 - .04 * np.sin(np.pi * k)), 44 * CM * flare])
        # The shadow of the chin falls on the upper half of the neck.
        n = tube(neck, colour=self.skin_colour * .93, segments=48,
                 shade=np.interp(np.linspace(0, 1, 9), [0, .35, .6, 1], [.42, .55, .8, .9]), smooth=1)
        body_turn = rotation(pose.body)
        follow = np.repeat(np.linspace(1, 0, 9), 49)[:, None]
        root = np.array([pose.x, eye_y, pose.z])
        still = n.vertices @ body_turn.T
        moved = (n.vertices - pivot * [1, 1, -1] * CM) @ turn.T + pivot * [1, 1, -1] * CM
        n.vertices = (moved * follow + still * (1 - follow) + root).astype(np.float32)
        n.normals = normals(n.vertices, n.triangles, n.vertices.mean(0))
        out.append(n)
        base = root + np.array([0, 136 * CM, 8 * CM])
        for m in self._body(pose):
            m.vertices = (m.vertices @ body_turn.T + base).astype(np.float32)
            m.normals = normals(m.vertices, m.triangles, m.vertices.reshape(-1, 3).mean(0) * [1, 0, 1] + m.vertices * [0, 1, 0])
            out.append(m)
        return out, self._truth(points, head, head_world, pose)

    def _truth(self, points, head, head_world, pose):
        """Face box (brow to chin, as YuNet draws it) and five points in pixels, before clipping."""
        from render import project
        grid = self.grid
        eye = points[36:48].mean(0)
        local = np.column_stack([points - eye, _DEPTH])
        on_screen = project(head_world(local))
        five = np.stack([on_screen[36:42].mean(0), on_screen[42:48].mean(0), on_screen[30], on_screen[48], on_screen[54]])
        front = project(head.vertices[:grid.front - SPOKES])
        face = front[grid.uv[:grid.front - SPOKES, 1] > CENTRE[1] - 4]
        x0, x1 = face[:, 0].min(), face[:, 0].max()
        y1 = on_screen[5:12, 1].max()
        eyes, chin = on_screen[36:48].mean(0), on_screen[8]
        y0 = eyes[1] - .62 * (chin[1] - eyes[1])
        x0, x1, y1 = x0 + .015 * (x1 - x0), x1 - .015 * (x1 - x0), y1 - .03 * (y1 - y0)
        return dict(box=[x0, y0, x1, y1], points=five, yaw=pose.yaw)
