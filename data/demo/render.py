"""A small software renderer: textured triangle meshes, a pinhole camera, a depth buffer.

World: centimetres, the camera at the origin, x to the right, y down, z away from the camera.
Light is computed per vertex, textures are BGR in 0..255 with a fourth channel that an alpha test
compares with a mesh's threshold (hair is many thin shells with holes). Everything is drawn at
twice the size and averaged down.
"""
from dataclasses import dataclass

from numba import njit
import cv2
import numpy as np

WIDTH, HEIGHT, FOCAL = 1280, 720, 834.0  # 75° of horizontal view
OVERSAMPLE = 2


@dataclass
class Mesh:
    """Vertices n×3, triangles m×3, uv n×2 in texture pixels, texture h×w×4.

    `shade` n×1 darkens vertices that others shadow; `cover` n is added to the alpha test; `gain`
    says how much of the scene's light applies (a face texture already holds soft frontal light).
    """
    vertices: np.ndarray
    triangles: np.ndarray
    uv: np.ndarray
    texture: np.ndarray
    shade: np.ndarray
    cover: np.ndarray
    threshold: float = 0.0
    gain: float = 1.0
    normals: np.ndarray = None


@dataclass
class Light:
    """Ambient light and one or more directional lights, as BGR intensities.

    `directions` point from the surface to the light.
    """
    ambient: np.ndarray
    directions: np.ndarray
    colours: np.ndarray

    def at(self, normals, wrap=.25):
        d = self.directions / np.linalg.norm(self.directions, axis=1, keepdims=True)
        lambert = np.clip((normals @ d.T + wrap) / (1 + wrap), 0, None)
        return self.ambient + lambert @ self.colours


def mesh(vertices, triangles, uv=None, texture=None, colour=None, shade=None, cover=None, **more):
    """A mesh with the missing parts filled in; `colour` makes a one-pixel texture."""
    n = len(vertices)
    if texture is None:
        texture = np.full((2, 2, 4), 255, np.float32)
        texture[..., :3] = colour
        uv = np.zeros((n, 2), np.float32)
    return Mesh(np.float32(vertices), np.int32(triangles), np.float32(uv), np.float32(texture),
                np.ones(n, np.float32) if shade is None else np.float32(shade),
                np.ones(n, np.float32) if cover is None else np.float32(cover), **more)


def grid_triangles(rows, columns, closed=False):
    """Triangles of a rows×columns grid of vertices; `closed` joins the last column to the first."""
    r, c = np.mgrid[:rows - 1, :columns if closed else columns - 1]
    a, b = r * columns + c, r * columns + (c + 1) % columns
    d, e = a + columns, b + columns
    return np.concatenate([np.stack([a, d, b], -1).reshape(-1, 3), np.stack([b, d, e], -1).reshape(-1, 3)])


@njit(cache=True)
def _normals(vertices, triangles):
    out = np.zeros_like(vertices)
    for i in range(len(triangles)):
        a, b, c = triangles[i]
        ux, uy, uz = vertices[b] - vertices[a]
        vx, vy, vz = vertices[c] - vertices[a]
        nx, ny, nz = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
        for k in (a, b, c):
            out[k, 0] += nx
            out[k, 1] += ny
            out[k, 2] += nz
    for i in range(len(out)):
        n = np.sqrt((out[i] ** 2).sum()) + 1e-9
        out[i] /= n
    return out


def normals(vertices, triangles, away_from=None):
    """Unit vertex normals; with `away_from` they are turned to point away from that point."""
    n = _normals(np.ascontiguousarray(vertices, dtype=np.float32), triangles)
    if away_from is not None:
        n *= np.sign(((vertices - away_from) * n).sum(1, keepdims=True) + 1e-9)
    return n


@njit(cache=True, fastmath=True)
def _raster(colour, depth, alpha, x, y, z, uv, light, cover, triangles, texture, threshold, bias):
    h, w = depth.shape
    th, tw = texture.shape[:2]
    for i in range(len(triangles)):
        a, b, c = triangles[i]
        x0, y0, x1, y1, x2, y2 = x[a], y[a], x[b], y[b], x[c], y[c]
        if z[a] < 5 or z[b] < 5 or z[c] < 5:
            continue
        area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
        if abs(area) < 1e-6:
            continue
        lo_x = max(int(np.ceil(min(x0, x1, x2))), 0)
        hi_x = min(int(np.floor(max(x0, x1, x2))), w - 1)
        lo_y = max(int(np.ceil(min(y0, y1, y2))), 0)
        hi_y = min(int(np.floor(max(y0, y1, y2))), h - 1)
        for py in range(lo_y, hi_y + 1):
            for px in range(lo_x, hi_x + 1):
                w0 = ((x1 - px) * (y2 - py) - (x2 - px) * (y1 - py)) / area
                w1 = ((x2 - px) * (y0 - py) - (x0 - px) * (y2 - py)) / area
                w2 = 1 - w0 - w1
                if w0 < -1e-4 or w1 < -1e-4 or w2 < -1e-4:
                    continue
                d = w0 * z[a] + w1 * z[b] + w2 * z[c] - bias
                if d >= depth[py, px]:
                    continue
                u = w0 * uv[a, 0] + w1 * uv[b, 0] + w2 * uv[c, 0]
                v = w0 * uv[a, 1] + w1 * uv[b, 1] + w2 * uv[c, 1]
                u = min(max(u, 0.0), tw - 1.001)
                v = min(max(v, 0.0), th - 1.001)
                iu, iv = int(u), int(v)
                fu, fv = u - iu, v - iv
                if threshold > 0:
                    t = ((texture[iv, iu, 3] * (1 - fu) + texture[iv, iu + 1, 3] * fu) * (1 - fv)
                         + (texture[iv + 1, iu, 3] * (1 - fu) + texture[iv + 1, iu + 1, 3] * fu) * fv) / 255
                    t += 2 * (w0 * cover[a] + w1 * cover[b] + w2 * cover[c] - 1)
                    if t < threshold:
                        continue
                depth[py, px] = d
                alpha[py, px] = 1
                for k in range(3):
                    t = ((texture[iv, iu, k] * (1 - fu) + texture[iv, iu + 1, k] * fu) * (1 - fv)
                         + (texture[iv + 1, iu, k] * (1 - fu) + texture[iv + 1, iu + 1, k] * fu) * fv)
                    colour[py, px, k] = t * (w0 * light[a, k] + w1 * light[b, k] + w2 * light[c, k])


def project(vertices):
    """World points (n×3) to pixels (n×2)."""
    z = np.maximum(vertices[:, 2], 1.0)
    return np.stack([WIDTH / 2 + FOCAL * vertices[:, 0] / z, HEIGHT / 2 + FOCAL * vertices[:, 1] / z], 1)


def draw(frame, meshes, light, soften=.55):
    """Draws world-space meshes over `frame` (float BGR, HEIGHT×WIDTH×3) in place.

    Gives the mask of what was covered (0..1), for contact shadows and reflections.
    """
    height, width = frame.shape[:2]
    ends = [project(m.vertices) for m in meshes]
    low = np.min([e.min(0) for e in ends], 0)
    high = np.max([e.max(0) for e in ends], 0)
    x0, y0 = max(int(low[0]) - 3, 0), max(int(low[1]) - 3, 0)
    x1, y1 = min(int(high[0]) + 4, width), min(int(high[1]) + 4, height)
    mask = np.zeros((height, width), np.float32)
    if x1 - x0 < 2 or y1 - y0 < 2:
        return mask
    s = OVERSAMPLE
    shape = ((y1 - y0) * s, (x1 - x0) * s)
    colour = np.zeros((*shape, 3), np.float32)
    depth = np.full(shape, 1e9, np.float32)
    alpha = np.zeros(shape, np.float32)
    front = np.float32([[0, 0, -1]])
    for m, p in zip(meshes, ends):
        lit = light.at(m.normals)
        if m.gain != 1.0:
            reference = light.at(front)
            lit = reference * (1 + m.gain * (lit / reference - 1))
        lit = np.float32(lit * m.shade[:, None])
        _raster(colour, depth, alpha, np.float32((p[:, 0] - x0 + .5) * s - .5),
                np.float32((p[:, 1] - y0 + .5) * s - .5), m.vertices[:, 2].astype(np.float32), m.uv, lit,
                m.cover, m.triangles, m.texture, np.float32(m.threshold), np.float32(0))
    size = (x1 - x0, y1 - y0)
    colour = cv2.resize(colour, size, interpolation=cv2.INTER_AREA)
    alpha = cv2.resize(alpha, size, interpolation=cv2.INTER_AREA)
    if soften:
        colour = cv2.GaussianBlur(colour, (0, 0), soften)
        alpha = cv2.GaussianBlur(alpha, (0, 0), soften)
    part = frame[y0:y1, x0:x1]
    part[:] = part * (1 - alpha[..., None]) + colour
    mask[y0:y1, x0:x1] = alpha
    return mask


def rotation(yaw=0.0, pitch=0.0, roll=0.0):
    """Rotation for degrees of yaw (to the image's right), pitch (up) and roll (clockwise)."""
    a, b, c = np.radians([yaw, pitch, roll])
    ry = np.array([[np.cos(a), 0, -np.sin(a)], [0, 1, 0], [np.sin(a), 0, np.cos(a)]])
    rx = np.array([[1, 0, 0], [0, np.cos(b), np.sin(b)], [0, -np.sin(b), np.cos(b)]])
    rz = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return ry @ rx @ rz
