"""What a run records, on disk and at W&B."""

import json
import struct
import subprocess
import sys
import time
from contextlib import suppress

import pytest

from cherimoya.config import LoggerConfig
from cherimoya.errors import Interrupted
from cherimoya.training.run_log import RunLog


def logger(**values) -> LoggerConfig:
    defaults = {"project": "test", "mode": "offline", "run_name": None, "group": "g", "tags": ["t"]}
    return LoggerConfig(**{"name": "none", **defaults, **values})


def status(folder) -> dict:
    return json.loads((folder / "status.json").read_text())


def test_rows_are_on_disk_at_once_and_nan_is_null(tmp_path):
    with RunLog(tmp_path, logger()) as log:
        log.row({"step": 1, "value": float("nan")})
        assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 1, "value": null}\n'
        assert status(tmp_path)["state"] == "running"
    assert status(tmp_path)["state"] == "done"


def test_a_rewound_log_forgets_rows_and_half_rows(tmp_path):
    with RunLog(tmp_path, logger()) as log:
        log.row({"step": 1})
        position = log.position
        log.row({"step": 2})
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 3, "val')
    with RunLog(tmp_path, logger()) as log:
        log.rewind(position)
        log.row({"step": 2})
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 1}\n{"step": 2}\n'


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (ValueError("broken"), "failed"),
        (Interrupted(15), "interrupted"),
        (KeyboardInterrupt(), "interrupted"),
    ],
)
def test_the_status_tells_how_it_ended(tmp_path, error, state):
    with pytest.raises(type(error)), RunLog(tmp_path, logger()):
        raise error
    assert status(tmp_path)["state"] == state
    assert type(error).__name__ in status(tmp_path)["traceback"]


def test_no_logger_never_imports_wandb(tmp_path):
    code = (
        "import sys\n"
        "from cherimoya.config import LoggerConfig\n"
        "from cherimoya.training.run_log import RunLog\n"
        "from pathlib import Path\n"
        "import cherimoya.analysis.run\n"
        "config = LoggerConfig('none', 'p', 'auto', None, None, [])\n"
        f"with RunLog(Path({str(tmp_path)!r}), config) as log:\n"
        "    log.check_wandb()\n"
        "    log.start_wandb({}, None)\n"
        "    log.row({'step': 1})\n"
        "assert 'wandb' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_wandb_gets_config_rows_summary_and_the_end(tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    with suppress(ValueError), RunLog(tmp_path, logger(name="wandb")) as log:
        log.check_wandb()
        log.start_wandb({"seed": 7}, None)
        log.row({"step": 5, "valid/loss": 1.5})
        log.summary({"best_epoch": 3})
        run_id = log.wandb_id
        assert log.sync_command.startswith("wandb sync ")
        raise ValueError("broken")
    (folder,) = tmp_path.glob(f"wandb/offline-run-*-{run_id}")
    end = time.monotonic() + 20  # W&B's own process may still be writing
    while (records := read_wandb(folder / f"run-{run_id}.wandb"))["exit_code"] is None:
        assert time.monotonic() < end, records
        time.sleep(0.1)
    assert records["config"]["seed"] == 7
    assert records["history"] == [{"step": 5, "valid/loss": 1.5}]
    assert records["summary"]["best_epoch"] == 3
    assert records["summary"]["status"] == "failed"
    assert records["exit_code"] == 1


def read_wandb(path) -> dict:
    """Config, history, summary and exit code of an offline W&B run, read back from disk."""
    from wandb.proto import wandb_internal_pb2

    found = {"config": {}, "history": [], "summary": {}, "exit_code": None}
    for data in leveldb_records(path.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            found["config"] |= {u.key: json.loads(u.value_json) for u in record.run.config.update}
        elif kind == "config":  # whatever the run record was too early for
            found["config"] |= {u.key: json.loads(u.value_json) for u in record.config.update}
        elif kind == "history":
            row = {
                i.key or ".".join(i.nested_key): json.loads(i.value_json)
                for i in record.history.item
            }
            found["history"].append({k: v for k, v in row.items() if not k.startswith("_")})
        elif kind == "summary":
            found["summary"] |= {
                u.key or ".".join(u.nested_key): json.loads(u.value_json)
                for u in record.summary.update
            }
        elif kind == "exit":
            found["exit_code"] = record.exit.exit_code
    return found


def leveldb_records(content: bytes, block: int = 32768, header: int = 7):
    """The records of a LevelDB log, which is how W&B writes a run, after the file's own header."""
    at, parts = header, b""
    while at + header <= len(content):
        if block - at % block < header:  # the rest of a block too short for a record is padding
            at += block - at % block
            continue
        _, length, kind = struct.unpack_from("<IHB", content, at)
        parts += content[at + header : at + header + length]
        at += header + length
        if kind in (1, 4):  # a whole record, or the last part of one
            yield parts
            parts = b""
