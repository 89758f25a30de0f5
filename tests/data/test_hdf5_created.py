"""What HDF5 cannot write is an error, not a file that lacks a part."""

import errno
import os
import subprocess
import sys

import pytest

FULL = """
import resource, signal, sys
import numpy as np
from pathlib import Path
from cherimoya.data.hdf5_file import created
from cherimoya.util.files import atomic_path

def add(file):
    made = file.create_dataset("a", (64, 4096), "f4", chunks=(1, 4096))
    made[:] = np.random.default_rng(0).random((64, 4096), "f4")

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    with atomic_path(Path(sys.argv[1])) as temporary, created(temporary) as file:
        add(file)
except OSError as error:
    print("errno", error.errno, error.filename)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no limits of file sizes")
def test_a_dataset_that_cannot_be_written_is_an_error(tmp_path):
    path = tmp_path / "a.h5"
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(path)], capture_output=True, text=True
    )  # fmt: skip
    assert done.stdout == f"errno {errno.EFBIG} {path}\n", done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert os.listdir(tmp_path) == []
