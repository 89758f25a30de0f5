"""What --version prints, without the packages that compose configurations."""

import platform
from importlib.metadata import PackageNotFoundError, version

from cherimoya import __version__


def version_text(script: str) -> str:
    """This package's version, and those that its numbers depend on."""
    others = []
    for package in ("torch", "triton"):
        try:
            others.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            others.append(f"no {package}")
    python = f"Python {platform.python_version()}"
    return f"{script} {__version__} ({', '.join([python, *others])})"
