"""Writes checkpoints as torch.save does, without PyTorch: a ZIP archive of a pickle and storages."""
import collections
import io
import math
import os
import pickle
import sys
import types
import zipfile
from typing import NamedTuple

STORAGES = {"F32": "FloatStorage", "F16": "HalfStorage", "BF16": "BFloat16Storage"}


def fake_modules():
    """What a pickle of tensors names; pickle wants to find it."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    for name in STORAGES.values():
        setattr(torch, name, type(name, (), {"__module__": "torch"}))

    def _rebuild_tensor_v2(*_):
        raise NotImplementedError

    _rebuild_tensor_v2.__module__, _rebuild_tensor_v2.__qualname__ = "torch._utils", "_rebuild_tensor_v2"
    utils._rebuild_tensor_v2 = _rebuild_tensor_v2  # pylint: disable=protected-access
    torch._utils = utils  # pylint: disable=protected-access
    return {"torch": torch, "torch._utils": utils}


class Storage(NamedTuple):
    key: str
    kind: type
    elements: int


class Tensor:
    """Pickled as PyTorch pickles one."""

    def __init__(self, rebuild, storage, shape):
        self.rebuild, self.storage, self.shape = rebuild, storage, shape

    def __reduce__(self):
        strides = tuple(math.prod(self.shape[i + 1:]) for i in range(len(self.shape)))
        return (self.rebuild, (self.storage, 0, tuple(self.shape), strides, False,
                               collections.OrderedDict()))


class Pickler(pickle.Pickler):
    def persistent_id(self, obj):
        if isinstance(obj, Storage):
            return ("storage", obj.kind, obj.key, "cpu", obj.elements)
        return None


def write(path, tensors):
    """(name, dtype, shape, bytes) of each; or any object, pickled as it is, in place of the list."""
    modules = fake_modules()
    kept = {name: sys.modules.get(name) for name in modules}
    sys.modules.update(modules)
    storages = []
    try:
        state = tensors
        if isinstance(tensors, list):
            state = collections.OrderedDict()
            for name, dtype, shape, data in tensors:
                storage = Storage(str(len(storages)), getattr(modules["torch"], STORAGES[dtype]),
                                  math.prod(shape))
                storages.append(data)
                rebuild = modules["torch._utils"]._rebuild_tensor_v2  # pylint: disable=protected-access
                state[name] = Tensor(rebuild, storage, shape)
        out = io.BytesIO()
        Pickler(out, protocol=2).dump(state)
    finally:
        for name, module in kept.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module
    stem = os.path.splitext(os.path.basename(path))[0]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(f"{stem}/data.pkl", out.getvalue())
        for number, data in enumerate(storages):
            archive.writestr(f"{stem}/data/{number}", data)
        archive.writestr(f"{stem}/version", "3\n")
