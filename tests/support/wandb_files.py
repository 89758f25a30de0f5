"""Reads what W&B wrote to disk."""

import json

from wandb.proto import wandb_internal_pb2

from cherimoya.loggers.wandb_files import records


def read_wandb(path) -> dict:
    """What an offline W&B run has on disk: a mapping, a list or None for each kind of record."""
    found = {"run": {}, "config": {}, "history": [], "numbers": [], "summary": {}, "artifacts": []}
    found |= {"system": set(), "exit_code": None}
    for data in records(path.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            run = record.run
            found["run"] = {"id": run.run_id, "name": run.display_name, "group": run.run_group}
            found["run"] |= {"job_type": run.job_type, "tags": list(run.tags)}
            found["config"] |= {u.key: json.loads(u.value_json) for u in record.run.config.update}
        elif kind == "config":  # whatever the run record was too early for
            found["config"] |= {u.key: json.loads(u.value_json) for u in record.config.update}
        elif kind == "history":
            row = {
                i.key or ".".join(i.nested_key): json.loads(i.value_json)
                for i in record.history.item
            }
            found["numbers"].append(row["_step"])
            found["history"].append({k: v for k, v in row.items() if not k.startswith("_")})
        elif kind == "summary":
            for u in record.summary.update:
                *groups, leaf = list(u.nested_key) or [u.key]
                node = found["summary"]
                for group in groups:
                    node = node.setdefault(group, {})
                node[leaf] = json.loads(u.value_json)
        elif kind == "stats":
            found["system"] |= {item.key for item in record.stats.item}
        elif kind == "artifact":
            found["artifacts"].append(record.artifact)
        elif kind == "exit":
            found["exit_code"] = record.exit.exit_code
    return found
