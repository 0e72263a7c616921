"""The entrance hall behind the people, things held up to the camera, and the camera itself."""
import cv2
import numpy as np

from face_model import seed_of
from figure import smoothstep, tube
from render import FOCAL, HEIGHT, WIDTH, Light, draw, grid_triangles, mesh, normals, rotation

DAY = Light(np.float32([.60, .60, .60]), np.float32([[-.55, -.75, -1.0], [.9, -.3, -.5]]),
            np.float32([[.40, .43, .45], [.16, .14, .12]]))
NIGHT = Light(np.float32([.34, .33, .33]), np.float32([[.55, -.55, -1.0], [-.9, -.2, -.3]]),
              np.float32([[.42, .62, .76], [.10, .07, .05]]))


def _wall_point(x, y, z):
    return WIDTH / 2 + FOCAL * x / z, HEIGHT / 2 + FOCAL * y / z


def hall():
    """The empty hall, float BGR: a wall 4.6 m away with a door, a picture, a notice board, a plant."""
    random = seed_of("hall")
    b = np.zeros((HEIGHT, WIDTH, 3), np.float32)
    ys, xs = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
    z = 460.0
    floor_y = int(_wall_point(0, 152, z)[1])
    ceiling_y = int(_wall_point(0, -128, z)[1])
    b[:] = np.float32((176, 187, 192)) * (1.06 - .25 * np.abs(xs / WIDTH - .42) - .10 * ys / HEIGHT)[..., None]

    def box(x0, y0, x1, y1, colour, line=None):
        p, q = _wall_point(x0, y0, z), _wall_point(x1, y1, z)
        p, q = tuple(int(v) for v in p), tuple(int(v) for v in q)
        cv2.rectangle(b, p, q, colour, -1)
        if line is not None:
            cv2.rectangle(b, p, q, line, 3)
        return p, q

    floor = ys > floor_y
    distance = FOCAL * 152 / np.maximum(ys - HEIGHT / 2, 1)
    tile = (np.floor((xs - WIDTH / 2) * distance / FOCAL / 60) + np.floor(distance / 60)) % 2
    b[floor] = (np.float32((112, 122, 130)) * (1 + .07 * tile)[..., None])[floor]
    b[ys < ceiling_y] = (206, 208, 210)
    box(-400, 142, 400, 152, (196, 200, 204))
    box(-62, -62, 52, 152, (150, 160, 168))                              # frame
    (px, py), (qx, qy) = box(-55, -55, 45, 150, (78, 104, 138))
    grain = cv2.GaussianBlur(random.standard_normal((qy - py, qx - px)).astype(np.float32), (0, 0), sigmaX=1.2, sigmaY=30)
    b[py:qy, px:qx] *= (1 + .05 * grain / grain.std())[..., None]
    for y in (-45, 45):
        box(-44, y, -10, y + 78, (70, 94, 126), (56, 76, 104))
        box(0, y, 34, y + 78, (70, 94, 126), (56, 76, 104))
    box(36, 46, 42, 58, (150, 160, 165))
    box(120, -60, 205, 5, (40, 44, 50))
    (px, py), (qx, qy) = box(125, -55, 200, 0, (150, 170, 120))
    blob = cv2.GaussianBlur(random.standard_normal((qy - py, qx - px, 3)).astype(np.float32), (0, 0), 14)
    b[py:qy, px:qx] += 26 * blob / blob.std()
    box(-250, -40, -150, 40, (92, 126, 150), (60, 80, 100))
    for i in range(9):
        x, y = -246 + (i % 3) * 32, -36 + (i // 3) * 25
        box(x + random.uniform(0, 4), y + random.uniform(0, 4), x + 26, y + 20,
            [(225, 232, 235), (190, 215, 232), (214, 220, 200)][i % 3])
    box(230, 100, 262, 152, (70, 80, 92))
    for _ in range(60):
        x, y = 246 + random.normal() * 17, 62 + random.normal() * 22
        p = _wall_point(x, y, z)
        cv2.ellipse(b, (int(p[0]), int(p[1])), (int(random.uniform(10, 24)), 6), random.uniform(0, 180), 0, 360,
                    (50 + random.uniform(-15, 20), 95 + random.uniform(-25, 30), 62), -1)
    b += cv2.GaussianBlur(random.standard_normal((HEIGHT, WIDTH, 1)).astype(np.float32), (0, 0), 1.5)[..., None] * 9
    b *= 1 - .28 * smoothstep(-25, 15, ys - floor_y)[..., None] * smoothstep(60, 0, np.abs(ys - floor_y))[..., None]
    return cv2.GaussianBlur(b, (0, 0), 2.4)


def night_hall(day):
    """The same hall with its lights out but for a lamp to the right."""
    ys, xs = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
    glow = np.exp(-((xs - 1010) ** 2 + (ys - 120) ** 2) / (2 * 330.0 ** 2))[..., None]
    return day * (.12 + glow * np.float32((.34, .52, .68)))


class Camera:
    """Turns the ideal picture into a camera's: exposure, vignette, grain and 8 bits."""

    def __init__(self, seed, gain=1.0, grain=1.6, black=0.0, softness=0.0):
        self.random = np.random.default_rng(seed)
        self.gain, self.grain, self.black, self.softness = gain, grain, black, softness
        ys, xs = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
        r2 = ((xs - WIDTH / 2) ** 2 + (ys - HEIGHT / 2) ** 2) / (WIDTH / 2) ** 2
        self.vignette = (1 - .10 * r2)[..., None]
        self.pattern = self.random.standard_normal((HEIGHT, WIDTH, 1)).astype(np.float32)
        # Drawing fresh noise for every frame costs more than all else: shift one large sheet.
        self.sheet = self.random.standard_normal((HEIGHT + 256, WIDTH + 256, 3)).astype(np.float32)
        self.sheet = .75 * self.sheet.mean(2, keepdims=True) * 3 ** .5 + .45 * self.sheet
        self.sheet = cv2.GaussianBlur(self.sheet, (0, 0), .6) * 1.9

    def shoot(self, picture, flicker=1.0):
        p = picture * self.vignette * (self.gain * flicker) + self.black
        if self.softness:
            p = cv2.GaussianBlur(p, (0, 0), self.softness)
        dy, dx = self.random.integers(0, 256, 2)
        noise = self.sheet[dy:dy + HEIGHT, dx:dx + WIDTH]
        p = p + self.grain * (noise + .5 * self.pattern)
        return np.clip(p + .5, 0, 255).astype(np.uint8)


def portrait(figure, pose, light, background, size, face):
    """A photo of a figure, size×size, the face `face` pixels wide (float BGR)."""
    frame = np.empty((HEIGHT, WIDTH, 3), np.float32)
    frame[:] = background
    meshes, truth = figure.meshes(pose)
    draw(frame, meshes, light)
    box = truth["box"]
    k = face / (box[2] - box[0])
    cx, cy = (box[0] + box[2]) / 2, box[1] * .55 + box[3] * .45
    m = np.float32([[k, 0, size / 2 - k * cx], [0, k, size * .48 - k * cy]])
    return cv2.warpAffine(frame, m, (size, size), flags=cv2.INTER_AREA if k < 1 else cv2.INTER_CUBIC,
                          borderMode=cv2.BORDER_REPLICATE), truth, m


PHONE_CM, PAPER_CM = (7.4, 15.4), (21.0, 29.7)


def phone_texture(photo, face_share=.80):
    """A phone showing `photo` (square, the face in its middle): pixels, glare, bezel. Float BGRA."""
    w, h = 592, 1232                                  # 80 px a centimetre
    t = np.full((h, w, 3), 14, np.float32)
    ys, xs = np.mgrid[:h, :w].astype(np.float32)
    sw, sh = w - 36, h - 130
    side = int(sh)
    p = cv2.resize(photo, (side, side), interpolation=cv2.INTER_CUBIC)
    x = (side - sw) // 2
    screen = p[:, x:x + sw]
    screen = 255 * np.clip(screen / 255, 0, 1) ** .86
    screen = screen * np.float32([1.10, 1.0, .90]) * .92 + 20       # a cold, grey-black backlight
    yy, xx = np.mgrid[:sh, :sw].astype(np.float32)
    # Moiré of the camera's pixels and the screen's: wide coloured bands that survive the video codec,
    # bent by the lens, over a trace of the fine grid.
    bend = 26 * np.sin(2 * np.pi * yy / sh) + .00012 * (xx - sw / 2) ** 2 * 10
    for c in range(3):
        screen[..., c] *= (1 + .085 * np.sin(2 * np.pi * ((xx * .90 + yy * .42 + bend) / (46.0 + 2 * c) + c / 4))
                           + .055 * np.sin(2 * np.pi * ((xx * .35 - yy * .94 - bend) / (63.0 - 3 * c) + c / 3)))
    screen *= (1 + .035 * np.sin(2 * np.pi * (xx * .95 + yy * .30) / 13.0)
               + .03 * np.sin(2 * np.pi * (xx * .22 - yy * .97) / 21.0))[..., None]
    # Lines of the screen's refresh.
    screen *= (1 - .05 * smoothstep(.75, .95, np.sin(2 * np.pi * yy / 260.0 + 1)))[..., None]
    t[65:65 + sh, 18:18 + sw] = screen
    # A window mirrored in the glass.
    glare = smoothstep(60, 40, np.abs((xs - w * .74) + .35 * (ys - h * .28))) * smoothstep(330, 250, np.abs(ys - h * .30))
    t += 34 * glare[..., None] + 14 * (1 - ys / h)[..., None]
    corner = np.zeros((h, w), np.uint8)
    r = 60
    cv2.rectangle(corner, (r, 0), (w - r, h), 255, -1)
    cv2.rectangle(corner, (0, r), (w, h - r), 255, -1)
    for cx in (r, w - 1 - r):
        for cy in (r, h - 1 - r):
            cv2.circle(corner, (cx, cy), r, 255, -1)
    return np.dstack([np.clip(t, 0, 255), corner.astype(np.float32)])


def paper_texture(photo):
    """`photo` printed on a white sheet by an office printer: dull, dotted, with a border. Float BGRA."""
    w, h = 630, 891                                   # 30 px a centimetre
    t = np.full((h, w, 3), (226, 230, 229), np.float32)
    pw, ph = 540, 720
    p = cv2.resize(photo, (ph, ph), interpolation=cv2.INTER_AREA)[:, (ph - pw) // 2:(ph + pw) // 2]
    grey = p.mean(2, keepdims=True)
    p = (grey + (p - grey) * .62) * .70 + 42
    ys, xs = np.mgrid[:ph, :pw].astype(np.float32)
    for c, angle in enumerate((15, 45, 75)):
        a = np.radians(angle)
        u, v = xs * np.cos(a) + ys * np.sin(a), -xs * np.sin(a) + ys * np.cos(a)
        p[..., c] *= 1 + .10 * np.cos(2 * np.pi * u / 4.3) * np.cos(2 * np.pi * v / 4.3)
    p *= (1 + .03 * (np.floor(ys / 26) % 2))[..., None]   # bands of a worn print head
    t[(h - ph) // 2 - 20:(h + ph) // 2 - 20, (w - pw) // 2:(w + pw) // 2] = p
    random = seed_of("paper")
    t += 2.0 * random.standard_normal((h, w, 1))
    return np.dstack([np.clip(t, 0, 255), np.full((h, w), 255)]).astype(np.float32)


class HeldPicture:
    """A phone or a sheet of paper in a hand. `face_uv` are box and five points on the texture."""

    def __init__(self, texture, size_cm, box_uv, five_uv, paper, skin, sleeve):
        self.texture, self.size, self.paper = np.float32(texture), size_cm, paper
        self.box_uv, self.five_uv = np.float32(box_uv).reshape(2, 2), np.float32(five_uv)
        self.skin, self.sleeve = skin, sleeve

    def _place(self, uv, x, y, z, turn, bend):
        h, w = self.texture.shape[:2]
        a = (uv[:, 0] / w - .5) * self.size[0]
        b = (uv[:, 1] / h - .5) * self.size[1]
        p = np.stack([a, b, bend * (a / self.size[0] * 2) ** 2 + bend * .6 * (b / self.size[1]) ** 2], 1)
        return (p @ turn.T + [x, y, z]).astype(np.float32)

    def meshes(self, x, y, z, yaw=0.0, pitch=0.0, roll=0.0):
        """World meshes with the picture's middle at x y z, and the truth of the pictured face."""
        from render import project
        turn, bend = rotation(yaw, pitch, roll), 2.2 if self.paper else 0.0
        h, w = self.texture.shape[:2]
        uv = np.stack(np.meshgrid(np.linspace(0, w - 1.01, 17), np.linspace(0, h - 1.01, 17)), -1).reshape(-1, 2)
        v = self._place(uv, x, y, z, turn, bend)
        t = grid_triangles(17, 17)
        sheet = mesh(v, t, uv, self.texture, threshold=.5, gain=.8 if self.paper else .0)
        sheet.normals = normals(v, t, v.mean(0) + [0, 0, 50])
        meshes = [sheet]
        if not self.paper:
            back = mesh(v + np.float32([0, 0, .9]), t, uv, np.dstack([self.texture[..., :3] * 0 + 30, self.texture[..., 3]]), threshold=.5)
            back.normals = sheet.normals
            meshes.append(back)
        # A hand below: thumb in front, fingers behind, forearm down to the body.
        low = self.size[1] * (.44 if self.paper else .47)
        thumb_x = .0 if self.paper else .30 * self.size[0]
        base = np.array([thumb_x, low, 0])
        thumb = np.array([[-.5, -2.0, -.5, .1, .1], [-.45, -1.9, -.6, .6, .4], [-.4, -1.0, -.8, .85, .6], [.2, .6, -.7, .9, .75], [1.0, 2.4, .2, 1.1, 1.1], [1.8, 4.2, 1.6, 1.5, 1.3]])
        thumb[:, :3] += base
        palm = np.array([[1.6, 1.5, 2.2, 2.2, 1.2], [1.7, 4.5, 2.2, 3.0, 1.7], [1.9, 7.5, 3.0, 2.9, 1.9], [2.2, 10.5, 4.5, 2.6, 2.3]])
        palm[:, :3] += base
        sleeve = np.array([[2.2, 10.0, 4.5, 3.3, 3.2], [3.5, 18, 9, 3.9, 3.9], [6, 32, 17, 4.5, 4.5]])
        sleeve[:, :3] += base
        for rings, colour in ((thumb, self.skin), (palm, self.skin * .85), (sleeve, np.float32(self.sleeve))):
            m = tube(rings, colour=colour, segments=20)
            m.vertices = (m.vertices @ turn.T + [x, y, z]).astype(np.float32)
            m.normals = normals(m.vertices, m.triangles, m.vertices.mean(0) * [1, 0, 1] + m.vertices * [0, 1, 0])
            meshes.append(m)
        corners = np.float32([[a, b] for a in self.box_uv[:, 0] for b in self.box_uv[:, 1]])
        c = project(self._place(corners, x, y, z, turn, bend))
        five = project(self._place(self.five_uv, x, y, z, turn, bend))
        # The box of an upright face of the same size and middle: corners come as a0b0 a0b1 a1b0 a1b1.
        middle = c.mean(0)
        w = np.linalg.norm(c[2] - c[0]) + np.linalg.norm(c[3] - c[1])
        h = np.linalg.norm(c[1] - c[0]) + np.linalg.norm(c[3] - c[2])
        half = np.array([w, h]) / 4
        return meshes, dict(box=[*(middle - half), *(middle + half)], points=five, yaw=0.0)
