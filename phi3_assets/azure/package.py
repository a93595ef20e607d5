"""This package as a wheel, made from the files that are installed: the code of a command job.

Made from what runs here and not from a source tree, which need not be there; byte-equal for equal files, so that the
service knows code that it has.
"""

import hashlib
import zipfile
from importlib import metadata
from pathlib import Path

from phi3_assets.core.home import PACKAGE

NAME = "phi3-assets"
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest that zip knows
_LEFT_OUT = ("__pycache__",)


def build_wheel(folder: Path) -> Path:
    """Write the wheel to `folder`, and return its path.

    It is plain: unpacked anywhere on PYTHONPATH it is the package with its metadata.
    """
    version = metadata.version(NAME)
    stem = f"{NAME.replace('-', '_')}-{version}"
    path = folder / f"{stem}-py3-none-any.whl"
    info = {
        "METADATA": f"Metadata-Version: 2.1\nName: {NAME}\nVersion: {version}\n",
        "WHEEL": "Wheel-Version: 1.0\nGenerator: phi3-assets\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    contents = {
        file.relative_to(PACKAGE.parent).as_posix(): file.read_bytes()
        for file in sorted(PACKAGE.rglob("*"))
        if file.is_file() and not any(part in _LEFT_OUT for part in file.parts)
    }
    contents |= {f"{stem}.dist-info/{name}": text.encode() for name, text in info.items()}
    record = "".join(
        f"{name},sha256={hashlib.sha256(content).hexdigest()},{len(content)}\n" for name, content in contents.items()
    )
    contents[f"{stem}.dist-info/RECORD"] = record.encode()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        for name, content in contents.items():
            wheel.writestr(zipfile.ZipInfo(name, _EPOCH), content, zipfile.ZIP_DEFLATED)
    return path
