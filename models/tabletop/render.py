"""Offscreen rendering of tabletop scenes with MuJoCo: one pool model, re-posed and re-coloured for every scene."""

from __future__ import annotations

import ctypes.util
import os
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tabletop.camera import ASPECT
from tabletop.scenes import GLOSSES, MAX_OBJECTS, SIZE_JITTER, TABLE_HALF_M, Scene, SceneObject
from tabletop.shapes import class_meshes
from tabletop.textures import TEXTURE_SIZE_PX, paint_texture
from tabletop.vocabulary import SIZES

_TABLE_THICKNESS_M = 0.04
_FLOOR_M = -0.75
_KEY_LIGHT_M = 1.0
_SILHOUETTE_SHARE = 2
_SURFACES = ((0.15, 0.2), (0.45, 0.5), (0.8, 0.85))


class RenderError(RuntimeError):
    """No picture can be rendered on this machine; the message says what is missing."""


@dataclass(frozen=True)
class Rendering:
    """A rendered scene.

    Attributes:
        image: uint8 (H, W, 3), RGB.
        instances: uint8 (H, W), 0 for the background and i + 1 where object i is seen.
        visible_px: int64 (N,), pixels of each object in `instances`.
        visible_fraction: float64 (N,), those pixels over the object's full silhouette, in [0, 1].
    """

    image: NDArray[np.uint8]
    instances: NDArray[np.uint8]
    visible_px: NDArray[np.int64]
    visible_fraction: NDArray[np.float64]


class SceneRenderer:
    """Renders scenes at one size. A context manager; use it in the thread that made it."""

    def __init__(self, width: int = 480, height: int = 360) -> None:
        """Build the pool model and the offscreen context.

        Args:
            width: Image width in pixels.
            height: Image height in pixels, three quarters of the width.

        Raises:
            ValueError: The image is not 4:3.
            RenderError: MuJoCo or an offscreen OpenGL (EGL or OSMesa) is missing.
        """
        if abs(width / height - ASPECT) > 0.01:
            raise ValueError(f"expected a 4:3 image, got {width} x {height}; choose for example 480 x 360")
        mj = _import_mujoco()
        self._mj = mj
        self._size = (height, width)
        self._meshes: dict[tuple[str, int, str, int], int] = {}
        self._model = self._build_model(width, height)
        self._data = mj.MjData(self._model)
        self._option = mj.MjvOption()
        self._nothing = mj.MjvPerturb()
        self._scene = mj.MjvScene(self._model, maxgeom=MAX_OBJECTS + 8)
        self._lone = mj.MjvScene(self._model, maxgeom=MAX_OBJECTS + 8)
        for flag in (mj.mjtRndFlag.mjRND_SEGMENT, mj.mjtRndFlag.mjRND_IDCOLOR):
            self._lone.flags[flag] = True
        self._camera = mj.MjvCamera()
        self._camera.type = mj.mjtCamera.mjCAMERA_FIXED
        self._camera.fixedcamid = 0
        try:
            self._gl: Any = mj.GLContext(width, height)
            self._gl.make_current()
            self._context: Any = mj.MjrContext(self._model, mj.mjtFontScale.mjFONTSCALE_100)
            mj.mjr_setBuffer(mj.mjtFramebuffer.mjFB_OFFSCREEN, self._context)
        except Exception as error:  # MuJoCo raises whatever its OpenGL platform raises.
            raise RenderError(_missing_gl(str(error))) from error

    def __enter__(self) -> SceneRenderer:
        """Return the renderer itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the renderer."""
        self.close()

    def close(self) -> None:
        """Free the OpenGL context; a second call does nothing."""
        if self._gl is not None:
            self._context.free()
            self._gl.free()
            self._gl = self._context = None

    def render(self, scene: Scene) -> Rendering:
        """Render a scene.

        Args:
            scene: The scene, at most `MAX_OBJECTS` objects.

        Returns:
            Its picture, instance masks and visibilities.

        Raises:
            RenderError: The renderer was closed.
        """
        if self._gl is None:
            raise RenderError("expected an open renderer, got a closed one; make a new SceneRenderer")
        mj = self._mj
        self._pose(scene)
        mj.mj_kinematics(self._model, self._data)
        mj.mj_camlight(self._model, self._data)
        every = mj.mjtCatBit.mjCAT_ALL
        mj.mjv_updateScene(self._model, self._data, self._option, self._nothing, self._camera, every, self._scene)
        self._gl.make_current()
        image = self._draw(self._scene, self._size)
        instances, geoms = self._segment(len(scene.objects))
        visible = np.bincount(instances.ravel(), minlength=len(scene.objects) + 1)[1:]
        full = np.array([self._silhouette_px(geom) for geom in geoms], dtype=np.float64)
        fraction = np.clip(visible / np.maximum(full, 1), 0, 1)
        return Rendering(image, instances, visible.astype(np.int64), fraction)

    def _segment(self, count: int) -> tuple[NDArray[np.uint8], list[Any]]:
        """Render instance numbers; also return the drawn geom of every object."""
        mj = self._mj
        flags = (mj.mjtRndFlag.mjRND_SEGMENT, mj.mjtRndFlag.mjRND_IDCOLOR)
        for flag in flags:
            self._scene.flags[flag] = True
        codes = self._draw(self._scene, self._size).astype(np.int32)
        for flag in flags:
            self._scene.flags[flag] = False
        numbers = np.zeros(self._scene.ngeom + 1, dtype=np.uint8)
        geoms: list[Any] = [None] * count
        for geom in self._scene.geoms[: self._scene.ngeom]:
            slot = geom.objid - self._first_geom
            if geom.objtype == mj.mjtObj.mjOBJ_GEOM and 0 <= slot < count:
                numbers[geom.segid + 1] = slot + 1
                geoms[slot] = geom
        return numbers[codes[..., 0] + 256 * codes[..., 1]], geoms

    def _silhouette_px(self, geom: Any) -> float:
        """Pixels an object would cover with nothing in front of it, counted at reduced size."""
        mj = self._mj
        size = (self._size[0] // _SILHOUETTE_SHARE, self._size[1] // _SILHOUETTE_SHARE)
        scene = self._lone
        mj.mjv_updateScene(self._model, self._data, self._option, self._nothing, self._camera, 0, scene)
        lone = scene.geoms[0]
        mj.mjv_initGeom(lone, geom.type, geom.size, geom.pos, geom.mat.ravel(), geom.rgba)
        lone.dataid, lone.objid, lone.objtype, lone.segid = geom.dataid, geom.objid, geom.objtype, 0
        scene.ngeom = 1
        seen = self._draw(scene, size)[..., 0] != 0
        return float(seen.sum()) * _SILHOUETTE_SHARE**2

    def _draw(self, scene: Any, size: tuple[int, int]) -> NDArray[np.uint8]:
        mj = self._mj
        rect = mj.MjrRect(0, 0, size[1], size[0])
        mj.mjr_render(rect, scene, self._context)
        pixels = np.empty((*size, 3), dtype=np.uint8)
        mj.mjr_readPixels(pixels, None, rect, self._context)
        return pixels[::-1].copy()

    def _pose(self, scene: Scene) -> None:
        """Write a scene's objects, camera, lights and textures into the model."""
        mj, model, data = self._mj, self._model, self._data
        for slot in range(MAX_OBJECTS):
            geom = self._first_geom + slot
            if slot >= len(scene.objects):
                data.mocap_pos[slot] = (0.0, 0.0, _FLOOR_M - 5.0)
                continue
            item = scene.objects[slot]
            mesh = self._meshes[(item.class_name, item.variant, item.size, item.size_step)]
            model.geom_dataid[geom] = mesh
            # The compiler moves a mesh into its inertial frame; the geom's own pose has to undo that.
            model.geom_pos[geom] = model.mesh_pos[mesh]
            model.geom_quat[geom] = model.mesh_quat[mesh]
            model.geom_rgba[geom] = (*item.rgb, 1.0)
            model.geom_matid[geom] = self._first_surface + item.gloss
            data.mocap_pos[slot] = (item.x, item.y, 0.0)
            data.mocap_quat[slot] = _yaw_quaternion(item)
        camera = scene.camera
        model.cam_pos[0] = camera.position
        model.cam_fovy[0] = np.degrees(camera.fovy)
        mj.mju_mat2Quat(model.cam_quat[0], camera.axes.T.ravel())
        light = scene.lighting
        model.light_dir[0], model.light_diffuse[0] = light.key_direction, light.key
        model.light_pos[0] = -_KEY_LIGHT_M * np.array(light.key_direction)  # centres its shadow map on the table
        model.light_dir[1], model.light_diffuse[1] = light.fill_direction, light.fill
        model.vis.headlight.ambient[:] = light.ambient
        model.geom_rgba[self._floor_geom, :3] = scene.floor
        texture = paint_texture(scene.table)
        model.tex_data[: texture.size] = texture.ravel()
        if self._gl is not None:
            self._gl.make_current()
            mj.mjr_uploadTexture(model, self._context, 0)

    def _build_model(self, width: int, height: int) -> Any:
        """Compile the pool: every mesh at every size, and one mocap body a slot, whose mesh changes with the scene."""
        mj = self._mj
        half_x, half_y = TABLE_HALF_M
        surfaces = "".join(
            f'<material name="surface{i}" specular="{specular}" shininess="{shine}"/>'
            for i, (specular, shine) in enumerate(_SURFACES[:GLOSSES])
        )
        spec = mj.MjSpec.from_string(f"""
<mujoco>
  <visual>
    <global offwidth="{width}" offheight="{height}"/>
    <quality shadowsize="2048" offsamples="4"/>
    <headlight ambient="0.3 0.3 0.3" diffuse="0.08 0.08 0.08" specular="0 0 0"/>
    <map znear="0.05" zfar="5" shadowclip="0.9"/>
  </visual>
  <statistic center="0 0 0" extent="1"/>
  <asset>
    <texture name="table" type="2d" builtin="flat" rgb1="1 1 1" width="{TEXTURE_SIZE_PX}" height="{TEXTURE_SIZE_PX}"/>
    <texture name="sky" type="skybox" builtin="gradient" rgb1=".75 .78 .82" rgb2=".45 .47 .5" width="64" height="384"/>
    <material name="table" texture="table" specular="0.12" shininess="0.3"/>
    <material name="floor" specular="0" shininess="0"/>
    {surfaces}
  </asset>
  <worldbody>
    <camera name="camera" pos="0 -1 1"/>
    <light name="key" type="directional" pos="0 0 2" dir="0 0 -1" castshadow="true" specular="0.35 0.35 0.35"/>
    <light name="fill" type="directional" pos="0 0 2" dir="0 0 -1" castshadow="false" specular="0.1 0.1 0.1"/>
    <geom name="floor" type="plane" size="0 0 1" pos="0 0 {_FLOOR_M}" material="floor" contype="0" conaffinity="0"/>
    <geom name="table" type="box" size="{half_x} {half_y} {_TABLE_THICKNESS_M / 2}"
          pos="0 0 {-_TABLE_THICKNESS_M / 2}" material="table" contype="0" conaffinity="0"/>
  </worldbody>
</mujoco>""")
        names = []
        for name, meshes in class_meshes().items():
            for variant, mesh in enumerate(meshes):
                for size, scale in SIZES.items():
                    for step, jitter in enumerate(SIZE_JITTER):
                        names.append((name, variant, size, step))
                        spec.add_mesh(
                            name="-".join(map(str, names[-1])),
                            uservert=(mesh.vertices * scale * jitter).ravel(),
                            usernormal=mesh.normals.ravel(),
                            userface=mesh.faces.ravel(),
                            inertia=mj.mjtMeshInertia.mjMESH_INERTIA_SHELL,
                        )
        for slot in range(MAX_OBJECTS):
            body = spec.worldbody.add_body(name=f"slot{slot}", mocap=True)
            body.add_geom(
                name=f"slot{slot}", type=mj.mjtGeom.mjGEOM_MESH, meshname="-".join(map(str, names[0])),
                material="surface0", contype=0, conaffinity=0,
            )  # fmt: skip
        model = spec.compile()
        model.geom_sameframe[:] = 0
        self._meshes = {key: model.mesh("-".join(map(str, key))).id for key in names}
        self._first_geom = model.geom("slot0").id
        self._first_surface = model.material("surface0").id
        self._floor_geom = model.geom("floor").id
        return model


def _yaw_quaternion(item: SceneObject) -> tuple[float, float, float, float]:
    return (float(np.cos(item.yaw / 2)), 0.0, 0.0, float(np.sin(item.yaw / 2)))


def _import_mujoco() -> Any:
    """Import MuJoCo with an offscreen OpenGL platform; MUJOCO_GL, if set, is the user's choice."""
    if not os.environ.get("MUJOCO_GL"):
        if ctypes.util.find_library("EGL"):
            os.environ["MUJOCO_GL"] = "egl"
        elif ctypes.util.find_library("OSMesa"):
            os.environ["MUJOCO_GL"] = "osmesa"
        else:
            raise RenderError(_missing_gl("neither libEGL nor libOSMesa was found"))
    try:
        import mujoco
    except ImportError as error:
        raise RenderError(f"expected the mujoco package, got: {error}; remedy: pip install mujoco") from error
    except Exception as error:  # PyOpenGL fails in its own ways when the platform's library is broken.
        raise RenderError(_missing_gl(str(error))) from error
    return mujoco


def _missing_gl(actual: str) -> str:
    return (
        f"expected offscreen OpenGL (MUJOCO_GL={os.environ.get('MUJOCO_GL', 'unset')}), got: {actual}; remedy: "
        "apt-get install libegl1 libgl1-mesa-dri libopengl0 (EGL), or libosmesa6 and MUJOCO_GL=osmesa"
    )
