"""cherimoya-sweep slurm: a sweep as one sbatch script, a task of a job array for each member."""

import shlex
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from cherimoya.records import sweep as sweeps
from cherimoya.sweeps.plan import MEMBER_OF, Sweep

SCRIPT = """\
#!/bin/bash
{directives}
#SBATCH --output={log}
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=B:USR1@{warning}
# A run each of: {command}
# Submit it with sbatch. A task whose time is nearly up saves, is queued again and goes on; one
# that is pre-empted saves, and SLURM queues it again. Afterwards the same command with
# cherimoya-train finds all done and prints the table.

case "$SLURM_ARRAY_TASK_ID" in
{cases}
  *) echo "no run has number $SLURM_ARRAY_TASK_ID" >&2; exit 1 ;;
esac
cd {folder} || exit 1
{setup}{python} -m cherimoya.cli {fixed} "${{member[@]}}" &
run=$!
trap 'kill -USR1 "$run" 2>/dev/null' USR1
trap 'kill -TERM "$run" 2>/dev/null' TERM
trap 'kill -INT "$run" 2>/dev/null' INT
while :; do # a signal ends the waiting, not the run
  wait "$run"
  code=$?
  kill -0 "$run" 2>/dev/null || break
done
if [ "$code" -eq {again} ]; then # saved, since its time is nearly up
  scontrol requeue "${{SLURM_ARRAY_JOB_ID}}_${{SLURM_ARRAY_TASK_ID}}"
fi
exit "$code"
"""
STOPPED_BY_USR1 = 128 + 10


def script(sweep: Sweep, arguments: Sequence[str], options: Namespace) -> str:
    """The text of the script, for the members of `sweep` that are not done yet."""
    own = {word: _is_swept(word, sweep) for words in sweep.members for word in words}
    fixed = [word for word in sweep.members[0] if not own[word]]
    numbers, cases = [], []
    for i, words in enumerate(sweep.members):
        if sweeps.read_member(sweep.folder_of(words)).finished:
            continue
        numbers.append(str(i))
        cases.append(f"  {i}) member=({shlex.join(w for w in words if own[w])}) ;;")
    parallel = f"%{options.parallel}" if options.parallel else ""
    wanted = {
        "job-name": sweep.name,
        "array": _ranges(numbers) + parallel,
        "time": options.time,
        "partition": options.partition,
        "account": options.account,
        "qos": options.qos,
        "gpus": options.gpus or None,
        "cpus-per-task": options.cpus,
        "mem": options.mem,
    }
    lines = [f"#SBATCH --{k}={shlex.quote(str(v))}" for k, v in wanted.items() if v is not None]
    lines += [f"#SBATCH {line}" for line in options.sbatch]
    logs = (Path.cwd() / sweep.folder / "slurm").absolute()
    return SCRIPT.format(
        directives="\n".join(lines),
        log=shlex.quote(str(logs / "%A_%a.log")),
        warning=options.warning,
        command=shlex.join(["cherimoya-train", *arguments]),
        cases="\n".join(cases),
        folder=shlex.quote(str(Path.cwd())),
        setup="".join(f"{line}\n" for line in options.setup),
        python=shlex.quote(sys.executable),
        fixed=shlex.join([MEMBER_OF, str(sweep.folder), *fixed, *sweep.settings]),
        again=STOPPED_BY_USR1,
    )


def _is_swept(word: str, sweep: Sweep) -> bool:
    return word.lstrip("+").split("=", 1)[0] in sweep.swept


def _ranges(numbers: Sequence[str]) -> str:
    """0,1,2,5 as 0-2,5."""
    runs: list[list[int]] = []
    for n in map(int, numbers):
        if runs and n == runs[-1][-1] + 1:
            runs[-1][-1] = n
        else:
            runs.append([n, n])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)
