"""Write cherimoya/genome/cut_motifs.tsv: means of the base frequencies that chrombpnet publishes.

    python experiments/cut_sites/table.py ATAC.ref.motifs.txt DNASE.ref.motifs.txt \
        > cherimoya/genome/cut_motifs.tsv

Both files are in github.com/kundajelab/chrombpnet (in chrombpnet/data, before that in
chrombpnet/helpers/preprocessing/reads_to_bigwig): 20 rows of A C G T an experiment and strand.
"""

import sys
from pathlib import Path

import numpy as np

SETS = {  # whose experiments agree with each other (correlation of log ratios over 0.85)
    "Tn5": ("GSE101074_naive_hESC_ATAC", "scATAC_fibroblast", "GSE101905_d3_SSEAp"),
    "DNase I a": ("ENCSR000EMN_DNASE", "ENCSR014FPY_DNASE"),
    "DNase I b": ("ENCSR025EYJ_DNASE", "ENCSR109DTU_DNASE", "ENCSR618HFT_DNASE"),
}
FIRST = -10  # position of the first row; 0 is the base at which a cut is counted
HEAD = """\
# Frequencies of bases around the cuts of Tn5 and DNase I, by the strand of the read, on the
# genome's plus strand. Position 0 is the base at which a cut is counted: of Tn5 the middle of the 9
# bases that it doubles (the 5' end of a read +4 on the plus, -4 on the minus strand), of DNase I
# the base to the right of the cut (the 5' end +0, +1).
# Means over the experiments named, of the tables that chrombpnet finds shifts with (kundajelab/
# chrombpnet, MIT, ATAC.ref.motifs.txt and DNASE.ref.motifs.txt; Pampari et al. 2024,
# doi:10.1101/2024.12.25.630221). Made by experiments/cut_sites/table.py.
"""


def read(path: str) -> dict[str, np.ndarray]:
    """Name of experiment and strand -> (20, 4) frequencies."""
    found = {}
    for block in Path(path).read_text().split(">")[1:]:
        name, *rows = block.strip().splitlines()
        found[name] = np.array([row.split() for row in rows], float)
    return found


def main() -> None:
    published = read(sys.argv[1]) | read(sys.argv[2])
    sys.stdout.write(HEAD)
    for name, experiments in SETS.items():
        print(f"# {name}: {', '.join(experiments)}")
    print("motif\tstrand\tposition\tA\tC\tG\tT")
    for name, experiments in SETS.items():
        for strand in ("plus", "minus"):
            mean = np.mean([published[f"{one}_{strand}"] for one in experiments], axis=0)
            for position, row in enumerate(mean, FIRST):
                print(name, strand, position, *(f"{value:.4f}" for value in row), sep="\t")


if __name__ == "__main__":
    main()
