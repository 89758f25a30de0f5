"""However many loci, variants or chromosomes there are, few files are open at a time."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from command_lines import clean_environment
from interpreted import save_model
from toy import Toy

from cherimoya.genome.fasta_index import genome_on_disk

LIMIT = 200  # open files
LIMITED = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, ({0}, {0}))\n"
LIMITED += "from cherimoya.cli.commands import {1}; {1}()"


def test_a_genome_is_one_open_file(toy: Toy) -> None:
    with genome_on_disk(toy.fasta()) as genome:
        genome.codes("chrA")
        before = len(os.listdir("/proc/self/fd"))
        kept = [genome.codes(c)[at : at + 50] for c in toy.bases for at in range(0, 1900, 5)]
        assert len(os.listdir("/proc/self/fd")) == before
        assert len(kept) == 1140
        assert np.array_equal(kept[3], genome.codes("chrA")[15:65])
        sent = pickle.dumps(genome)
        assert len(sent) < 1500  # not the codes
        assert np.array_equal(pickle.loads(sent).codes("chrB"), genome.codes("chrB"))


@pytest.mark.slow
@pytest.mark.parametrize("command", ["attribute", "design", "marginalize", "variants", "predict"])
def test_commands_keep_to_a_limit(toy: Toy, command: str) -> None:
    save_model(toy.folder / "a.pt")
    rng = np.random.default_rng(0)
    toy.bases = {f"s{i}": "".join(rng.choice(list("ACGT"), 300)) for i in range(2 * LIMIT)}
    toy.fasta()
    toy.bed(*(f"{name}\t150\t151" for name in toy.bases))
    rows = [f"{name}\t150\t{bases[149]}\t{'A' if bases[149] != 'A' else 'C'}"
            for name, bases in toy.bases.items()]  # fmt: skip
    toy.write("v.tsv", "chrom\tpos\tref\talt\n" + "\n".join(rows) + "\n")
    own = {
        "attribute": ["loci=loci.bed", "data.in_window=200", "method=gradient", "window=20",
                      "logos=0", "output=out.h5"],
        "design": ["loci=loci.bed", "data.in_window=200", "change=1.0", "max_iter=1", "attempts=1",
                   "designs=1", "page=false", "output=out.tsv"],
        "marginalize": ["loci=loci.bed", "data.in_window=200", "motifs=[GATTACA]", "shuffle=false",
                        "max_loci=null", "profiles=0", "output=out.tsv"],
        "variants": ["variants=v.tsv", "in_window=200", "random_variants=0", "output=out.tsv"],
        "predict": ["in_window=200", "output=out", "loci=loci.bed"],
    }[command]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", LIMITED.format(LIMIT, command), "checkpoint=a.pt", "fasta=toy.fa",
         "device=cpu", *own],
        cwd=toy.folder, env=clean_environment(), capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert Path(toy.folder / own[-1].removeprefix("output=")).exists() or command == "predict"
