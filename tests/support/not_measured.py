"""Numbers of the documentation that look measured and are not: pages, what is written, and why.

Pages and words are patterns; the words have to stand on one of the pages.
"""

ANY = ".*"
VERSION, SETTING, SIZE = "a version", "a setting or a definition", "the size of what was measured"
HELD = "a limit that a test holds"

NOT_MEASURED: list[tuple[str, str, str]] = [
    (ANY, r"[Uu]pstream( |'s )?0\.\d(\.0)?(, 0\.2 and 0\.3)?", VERSION),
    (
        ANY,
        r"Python 3\.\d+(, and those for GPUs on 3\.12| and 3\.\d+)?|the same file as on 3\.11",
        VERSION,
    ),
    (ANY, r"CC BY 4\.0", VERSION),
    # sizes of examples and of what was timed
    (
        "README.md|docs/speed.md",
        r"\b64 sequences of 2,114 bases|\b8 sequences (of 2,114|on two)",
        SIZE,
    ),
    ("docs/speed.md", r"An epoch of 148,608 examples", SIZE),
    ("docs/training.md", r"a model of one half of the loci", SIZE),
    # settings and definitions
    (ANY, r"95 % interval", SETTING),
    (ANY, r"weakest 1 %", SETTING),
    (ANY, r"the limit of 0\.003|three times a flat profile \(ChromBPNet's 0\.003", SETTING),
    (ANY, r"about a tenth of the peaks", SETTING),
    (ANY, r"sign of life every 30 seconds|renewed every 30 seconds", SETTING),
    (ANY, r"a quarter of (a training|its steps)", SETTING),
    ("CHANGELOG.md", r"flanks of 0\.15", SETTING),
    ("CHANGELOG.md", r"6,000 steps on a GPU", SETTING),
    ("docs/recipes/atac.md", r"between -0\.3 and", SETTING),
    ("docs/training.md", r"at most five minutes back", SETTING),
    ("conf/data/.*", r"turn half of the examples|with ten times the background", SETTING),
    ("conf/design.yaml", r"change=1\.0|counts: 1\.0 is|counts, -1\.0 #|with a tenth of", SETTING),
    ("conf/hydra/sweeper/optuna.yaml", r"interval\(0\.005,0\.1\)", SETTING),
    ("conf/(loss/kendall|trainer/auto).yaml", r"such as 0\.(1|001)", SETTING),
    ("conf/optim/muon_adamw.yaml", r"\{iconv\.\*: 0\.1, blocks\.\*: # 0\.3\}", SETTING),
    # limits
    ("docs/(moving|speed).md", r"within 1e-4 \(relative RMS|losses within 1e-3", HELD),
    ("docs/sharing.md", r"more than 1e-4 of the largest", HELD),
]
