"""What the documentation says that was measured, and where each number is in experiments/.

A claim is a piece of a page with `{...}` in the place of each number. The numbers are read from the
results, written with the rounding that the braces say, and the page must have exactly these words.
"""

import math
from collections.abc import Callable

import records_read as r

README, GALLERY, SPEED, ANSWERS = "README.md", "docs/gallery.md", "docs/speed.md", "docs/answers.md"
Numbers = Callable[[], tuple[float, ...]]
SEEDS = r"recommended_\d"
MANY = "muon_decay_0.3-jitter_500-depth_10-width_128-scale_1"  # 0.25 background loci a peak
FEW = "chosen-negatives_0.02"
EARLIER = "upstream, 10,000 steps asked for"

CLAIMS: list[tuple[tuple[str, ...], str, Numbers]] = [
    # the default command
    ((README, "docs/index.md"), "network, about {:,.0f} parameters, that reads DNA",
     lambda: (round(r.default("parameters"), -4),)),
    ((README,), "then trains on simulated data: about {:.0f} minutes on 2 cores",
     lambda: (r.default("total_seconds") / 60,)),
    (("docs/index.md",), "simulated experiment, in about {:.0f} minutes on two CPU cores",
     lambda: (r.default("total_seconds") / 60,)),
    (("conf/data/synthetic.yaml",), "about {:.0f} minutes on 2 cores",
     lambda: (r.default("total_seconds") / 60,)),
    (("conf/model/cherimoya.yaml",), "9 blocks, {:,.0f} parameters on one unstranded track",
     lambda: (r.one("recipe/results.csv", "parameters", data="atac", run="base", stage=1),)),
    (("docs/first_run.md",), "Two CPU cores need about {:.0f} minutes.",
     lambda: (r.default("total_seconds") / 60,)),
    # scores beside upstream's
    ((README,), "| `experiment=recommended` | **{:.3f}, {:.3f}** | **{:.3f}, {:.3f}** | {:.0f} to {:.0f} s |",
     lambda: (*r.both(SEEDS), *r.spread(r.seconds(SEEDS)))),
    ((GALLERY,), "| `experiment=recommended`: 128 filters, 10 blocks, 6,000 steps | **{:.3f}, {:.3f}** | "
     "**{:.3f}, {:.3f}** | {:.0f} to {:.0f} s |",
     lambda: (*r.both(SEEDS), *r.spread(r.seconds(SEEDS)))),
    ((GALLERY,), "| three of them as an ensemble, both strands | {:.3f}, {:.3f} | {:.3f}, {:.3f} | |",
     lambda: r.both("recommended", 3, 2)),
    ((GALLERY,), "20 epochs | {:.3f}, {:.3f} | {:.3f}, {:.3f} | {:.0f} to {:.0f} s |",
     lambda: (*r.both(r"defaults_\d"), *r.spread(r.seconds(r"defaults_\d")))),
    ((README,), "| upstream 0.3.1, {:,.0f} and {:,.0f} steps | {:.3f}, {:.3f} | {:.3f}, {:.3f} | "
     "{:.0f} and {:.0f} s |", lambda: upstream_line()),
    ((GALLERY,), "| upstream 0.3.1, 128 filters, {:,.0f} and {:,.0f} steps | {:.3f}, {:.3f} | "
     "{:.3f}, {:.3f} | {:.0f} and {:.0f} s |", lambda: upstream_line()),
    ((README, GALLERY), "run with fewer steps | {:.3f}, {:.3f} | {:.3f}, {:.3f} | |",
     lambda: r.both(EARLIER)),
    ((GALLERY,), "on 2 CPU cores | {:.3f}, {:.3f} | {:.3f}, {:.3f} | {:.0f} and {:.0f} s |",
     lambda: (*(r.yeast(run, f"test {score}_pearson") for run in ("stripeseq", "atac")
                for score in ("profile", "count")),
              *(r.yeast(run, "train_seconds") for run in ("stripeseq", "atac")))),
    ((GALLERY,), "(AUROC {:.2f} and {:.2f} against {:.2f} and {:.2f})",
     lambda: (*(r.upstream(data, "auroc") for data in ("stripeseq", "atac")),
              *(r.auroc(data, SEEDS) for data in ("stripeseq", "atac")))),
    ((GALLERY,), "`data.negative_ratio=0.25` gives {:.2f} and {:.2f}, at the price of count correlations "
     "of {:.3f} and {:.3f} where they were {:.3f} and {:.3f}",
     lambda: tuple(r.recipe(data, run, score)
                   for run, score in ((MANY, "auroc"), (MANY, "count_pearson"), (FEW, "count_pearson"))
                   for data in ("stripeseq", "atac"))),
    (("docs/moving.md",), "in {:.0f} to {:.0f} % of its time",
     lambda: r.spread(100 / gain for gain in r.gains())),
    (("CHANGELOG.md",), "its test profile correlation is {:.3f} and its count correlation {:.3f}, on "
     "ATAC-seq {:.3f} and {:.3f}, where", lambda: r.both(SEEDS)),
    (("CHANGELOG.md",), "has at best {:.3f}, {:.3f}, {:.3f} and {:.3f} in {:.0f} to {:.0f} times the time",
     lambda: (*map(max, r.both("upstream"), r.both(EARLIER)), *r.gains())),
    (("CHANGELOG.md",), "test counts of {:.2f} and {:.2f} where they had {:.2f} and {:.2f}",
     lambda: tuple(r.one("yeast/results.csv", "test count_pearson", run=run, date=date)
                   for date in ("2026-11-29", "2026-11-22") for run in ("stripeseq", "atac"))),
    # steps
    *(((README,), f"| {filters}, {name} | {{:.2f}} ms | {{:.1f}} ms | {{:.1f}} |",
       lambda a=(precision, filters, commit): r.step(*a))
      for filters, name, precision, commit in r.STEPS),
    *(((SPEED,), f"| {filters} | {name} | {{:.2f}} ms | {{:.1f}} ms | {{:.1f}} |",
       lambda a=(precision, filters, commit): r.step(*a))
      for filters, name, precision, commit in r.STEPS),
    ((README,), "| 96, bf16, H200 | {:.2f} ms | {:.1f} ms | {:.1f} |", r.on_h200),
    ((SPEED,), "| 96 | bf16, H200 | {:.2f} ms | {:.1f} ms | {:.1f} |", r.on_h200),
    ((README,), "| 96, CPU | {:.0f} ms | {:,.0f} ms | {:.1f} |", lambda: r.cpu_step(96, 3)),
    ((SPEED,), "| 32 | {:.0f} ms | {:.0f} ms | {:.1f} ({:.1f} in a shorter run) |",
     lambda: (*r.cpu_step(32, 5), r.cpu_step(32, 2)[-1])),
    ((SPEED,), "| 96 | {:.0f} ms | {:,.0f} ms | {:.1f} ({:.1f} in a shorter run) |",
     lambda: (*r.cpu_step(96, 3), r.cpu_step(96, 2)[-1])),
    ((SPEED,), "9 blocks take {:.2f} ms in bf16, {:.2f} ms with TF32 and {:.1f} ms in full fp32",
     lambda: (r.alone("bf16"), r.alone("tf32"), r.alone("fp32", "0587210"))),
    ((SPEED,), "10,000 validation loci takes {:.1f} s on an H100.",
     lambda: (r.trained("epoch", "seconds", placement="resident"),)),
    ((SPEED,), "Two H200 train {:.2f} times the sequences of one.", lambda: (r.two_devices(),)),
    ((SPEED,), "A batch on 80 GB holds {:,.0f} sequences of 2,114 bases, against {:,.0f} of upstream.",
     lambda: tuple(r.trained("largest batch", "batch_size", contender=who)
                   for who in ("ours", "upstream"))),
    (("CHANGELOG.md",), "a step of 96 filters takes {:.1f} ms on an H200, and {:.1f} ms with cuBLAS",
     lambda: (r.alone("fp32", "0587210"), r.alone("fp32", "7d61217"))),
    (("CHANGELOG.md",), "a step of 96 filters in bf16 takes {:.2f} ms there, and took {:.2f} ms before.",
     lambda: (r.alone("bf16"), r.alone("bf16", "f94b221"))),
    (("CHANGELOG.md",), "side by side: {:.1f} s instead of {:.1f} s",
     lambda: tuple(r.trained("start, cold cache", "seconds", commit=commit, seconds=s)
                   for commit, s in (("0b6ba9f", 20.96), ("01c6c7f", 30.56)))),
    # saturation mutagenesis
    ((ANSWERS,), "(about {:.0f} seconds a locus on two cores)",
     lambda: (min(r.mutagenesis("ours", "seconds", **r.CPU)),)),
    ((SPEED,), "On two cores, {:.0f} to {:.0f} s a locus against {:.0f} to {:.0f} s",
     lambda: (*r.spread(r.mutagenesis("ours", "seconds", **r.CPU)),
              *r.spread(r.mutagenesis("upstream", "seconds", **r.CPU)))),
    ((SPEED,), "The results agree within {:.0e}",
     lambda: (r.rounded_up(max(r.mutagenesis("upstream", "rms_to_ours", **r.CPU))),)),
    ((SPEED,), "32 loci take {:.2f} s against {:.1f} to {:.1f} s, with TF32 on both sides",
     lambda: (max(r.mutagenesis("ours", "seconds", precision="tf32", **r.GPU)),
              *r.spread(r.mutagenesis("upstream", "seconds", target="counts", **r.GPU)))),
    ((SPEED,), "and {:.0f} % of upstream's error",
     lambda: (100 * max(r.mutagenesis("ours", "rms_to_float64", precision="tf32", **r.GPU))
              / max(r.mutagenesis("upstream", "rms_to_float64", **r.GPU)),)),
    ((SPEED,), "they take {:.2f} s and lie within {:.1e} of float64 ({:.1e} at the worst locus); "
     "upstream lies within {:.1e} ({:.1f} at the worst).",
     lambda: (min(r.mutagenesis("ours", "seconds", precision="fp32", **r.GPU)),
              *(max(r.mutagenesis(who, what, precision=precision, **r.GPU))
                for who, precision in (("ours", "fp32"), ("upstream", "float32"))
                for what in ("rms_to_float64", "worst_locus")))),
    (("CHANGELOG.md",), "of which TF32 loses up to {:.0f} % at the worst of 32 loci, bf16 up to {:.0f} %",
     lambda: tuple(100 * max(r.mutagenesis("ours", "worst_locus", loci=32, precision=precision))
                   for precision in ("tf32", "bf16"))),
    # kernels
    *(((SPEED,), f"| {name} | {n}, {length}, {c} | {shown} | {cells} |",
       lambda a=(work, way, n, c, dtype): r.kernel(*a))
      for name, work, way, n, length, c, dtype, shown, cells in r.KERNELS),
    ((SPEED,), "from {:.0f} to {:.0f} filters, {:.0f} to {:.0f} sequences and {:.0f} to {:,.0f} bases, is",
     r.kernel_shapes),
    ((SPEED,), "the gain is {:.1f} to {:.1f} times", r.kernel_gains),
    # studies
    *((("docs/gallery/ablation.md",), f"| {name} | {{:.3f}} | {{:.1f}} | {{:.3f}} |",
       lambda settings=settings: r.ablation(**settings)) for name, settings in r.ABLATION.items()),
    *((("docs/gallery/ablation.md",), f"| `{name}` | {{:.3f}} | {{:.1f}} | {{:.3f}} |",
       lambda settings=settings: r.ablation(**settings)) for name, settings in r.PARTS.items()),
    (("docs/gallery/depth_width.md",), "from {:.2f} to {:.2f} with 5 blocks to {:.2f} to {:.2f} with 10",
     lambda: (*r.by_width(5), *r.by_width(10))),
    (("docs/gallery/depth_width.md",), "10 blocks of 32 filters ({:,.0f} parameters, {:.3f}) beat 7 blocks of 160 "
     "({:,.0f}, {:.3f})", lambda: (*r.of_shape(10, 32), *r.of_shape(7, 160))),
    (("docs/gallery/depth_width.md",), "gain {:.2f} for {:.0f} times the parameters",
     lambda: (r.of_shape(10, 160)[1] - r.of_shape(10, 32)[1],
              r.of_shape(10, 160)[0] / r.of_shape(10, 32)[0])),
    # answers
    ((ANSWERS,), "finds {:.0f} % of them with a precision of {:.0f} % when given the true motifs",
     lambda: r.hits("planted")),
    ((ANSWERS,), "and {:.0f} % with {:.0f} % when given TF-MoDISco's", lambda: r.hits("TF-MoDISco")),
    ((ANSWERS,), "in a second genome {:.0f} % with {:.0f} %, and {:.0f} % with {:.0f} %",
     lambda: (*r.hits("planted", 11), *r.hits("TF-MoDISco", 11))),
    ((ANSWERS,), "with a precision of {:.0f} %, {:.0f} times chance, and find {:.0f} % of those",
     lambda: r.yeast_hits("Abf1")),
    ((ANSWERS,), "on an H200, {:,.0f} variants take {:.0f} s with a model of 128 filters, and {:.0f} s the",
     lambda: (r.one("variants/speed.csv", "variants", what="first"),
              *(r.one("variants/speed.csv", "seconds", what=what) for what in ("first", "again")))),
    ((ANSWERS,), "it found {:.0f} % of the variants that break a planted motif at p < 0.001, where the "
     "fold change alone found {:.0f} %",
     lambda: tuple(100 * r.one("variants/results.csv", f"{score} p < 1e-3", variants="planted")
                   for score in ("combined", "log2_fold_change"))),
    ((ANSWERS, "conf/design.yaml"), "{:.1f} times the counts", lambda: (math.e,)),
    (("docs/pages.md",), "distance of profiles, 0 to {:.2f},", lambda: (math.sqrt(math.log(2)),)),
    # yeast
    (("docs/training.md",), "needed {:.0f} steps on the other half to reach what {:.0f} steps reached",
     lambda: (r.warm("warm", "steps"), r.warm("anew", "steps"))),
    (("docs/training.md",), "(profile {:.3f} and {:.3f}, counts {:.3f} and {:.3f};",
     lambda: tuple(r.warm(run, f"test {score}_pearson") for score in ("profile", "count")
                   for run in ("warm", "anew"))),
    (("docs/recipes/tss.md", "conf/experiment/yeast_stripeseq.yaml"), "about {:.0f} minutes",
     lambda: (r.yeast("stripeseq", "total_seconds") / 60,)),
    (("conf/experiment/yeast_atac.yaml",), "about {:.0f} minutes",
     lambda: (r.yeast("atac", "total_seconds") / 60,)),
    (("docs/your_data.md",), "`experiment=recommended` takes {:.0f} to {:.0f} s on an H200",
     lambda: r.spread(r.seconds(SEEDS))),
    (("docs/your_data.md",), "yeast's {:,.0f} and {:,.0f} work",
     lambda: tuple(sorted(r.one("yeast/data.csv", "loci", data=d) for d in ("atac", "stripeseq")))),
    (("docs/your_data.md",), "The {:,.0f} yeast ATAC-seq fragments",
     lambda: (r.one("yeast/data.csv", "fragments", data="atac"),)),
    (("docs/your_data.md",), "a median of {:.0f} cuts a peak",
     lambda: (r.one("yeast/data.csv", "median_counts", data="atac"),)),
]  # fmt: skip


def upstream_line() -> tuple[float, ...]:
    """Steps, correlations and seconds of upstream's command on both data sets."""
    return (
        *(r.upstream(data, "steps") for data in ("stripeseq", "atac")),
        *r.both("upstream"),
        *(r.upstream(data, "seconds") for data in ("stripeseq", "atac")),
    )
