"""Every kernel compiles for the GPUs that it is meant for; that needs no GPU."""

import json
import subprocess
import sys

import pytest
import torch
from command_lines import clean_environment

pytest.importorskip("triton")
if torch.version.hip:
    pytest.skip("compiles for NVIDIA GPUs", allow_module_level=True)

# Run by itself: this process may have imported Triton for its interpreter.
COMPILE = '''
import itertools, json, os, re, subprocess, sys, tempfile

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

FLOATS = {"eps", "scale", "scale1", "scale2", "unscale", "share", "beta", "weight_decay",
          "tall_scale", "unscale1", "unscale2",
          "residual_scale"}


def compiled(kernel, source, pointers, constants, capability, **options):
    """Registers spilled and shared memory of one kernel; an argument not named is an int32."""
    signature = {}
    for name in kernel.arg_names:
        if name in constants:
            signature[name] = "constexpr"
        elif name in pointers:
            signature[name] = pointers[name]
        else:
            signature[name] = "fp32" if name in FLOATS else "i32"
    at = kernel.arg_names.index
    aligned = {
        (at(name),): [["tt.divisibility", 16]]
        for name, kind in pointers.items()
        if kind.startswith("*")
    }
    values = {(at(name),): value for name, value in constants.items()}
    kernel = source(kernel, signature, values, aligned)
    return triton.compile(kernel, target=GPUTarget("cuda", capability, 32), options=options)


def plain(capability, dtype, C, widths, single):
    """Every plain kernel, for x in `dtype` and products in fp16 if `single`, else in `dtype`."""
    from cherimoya.ops.block import half_kernels, kernels as block
    from cherimoya.ops.conv_norm import bwd_kernels as conv_bwd, kernels as conv

    x, f32, half = f"*{dtype}", "*fp32", "*fp16" if single else f"*{dtype}"
    parts = dict.fromkeys(("part_mean", "part_m2", "part_count"), f32)
    sums = dict.fromkeys(("sum_g", "sum_gx"), f32)
    pdl = {"PDL": capability >= 90}
    march = {"C": C, "COLUMNS": 32, "ROWS": 16, "STEPS": 9, "AHEAD": 4, **pdl}
    gemm = {"C": C, "CA": widths[0], "CB": widths[1], "HP": 192, "BM": 64, "STAGES": 2,
            "FAST": True, **pdl}
    tables = {"w1": half, "w2": half}
    weights = {"w1": f32, "w2": f32, "w1_table": half, "w2_table": half, "w2_half": "*fp16"}
    stats = {**march, "H": 2 * C, "CP": sum(widths), "HP": 192, "BLOCK": 1024}
    yield conv.conv_stats_kernel, {"x": x, "weight": f32, **parts}, march
    yield (conv.conv_norm_fwd_kernel,
           {"x": x, "weight": f32, **parts, "mean_out": f32, "rstd_out": f32, "y": half},
           {**march, "PARTS": 32, "COMBINE": True})
    yield (conv_bwd.conv_norm_bwd_sums_kernel,
           {"x": x, "weight": f32, "dy": x, "mean": f32, "rstd": f32, **sums}, march)
    yield (conv_bwd.conv_norm_bwd_kernel,
           {"x": x, "weight": f32, "g": x, "mean": f32, "rstd": f32, **sums,
            "dx": x, "part_dw": f32}, {**march, "SUMS": 64})
    yield (conv.sum_rows_kernel, {"parts": f32, "out": f32}, {"BLOCK": 8, "DEPTH": 2048, **pdl})
    yield (block.block_stats_kernel, {"x": x, "weight": f32, **parts, **weights},
           {**stats, "HALF": not single, "SPLIT": False})
    yield (block.block_fwd_kernel, {"xhat": half, "x": x, **tables, "out": x}, {**gemm, "HS": 32})
    yield (block.block_bwd_xhat_kernel,
           {"xhat": half, "dout": half, "scales": f32, **tables, "g": x, **sums},
           {**gemm, "HS": 32, "SCALED": single})
    yield (block.block_bwd_weights_kernel,
           {"xhat": half, "dout": half, "scales": f32, **tables, "part_dw1": f32,
            "part_dw2": f32}, {**gemm, "HS": 64, "SCALED": single, "OWNED": 32, "EARLY": True})
    if single:
        from cherimoya.ops.block import fp32_kernels as full

        from cherimoya.ops.block.fp32_launch import LOG_SCALE, SCALE

        yield (block.block_stats_kernel, {"x": x, "weight": f32, **parts, **weights},
               {**stats, "HALF": False, "SPLIT": True})
        yield (full.block_full_fp32_fwd_kernel,
               {"x": x, "weight": f32, **parts, **tables, "out": x, "mean_out": f32,
                "rstd_out": f32},
               {**gemm, "SCALE": SCALE, "LOG_SCALE": LOG_SCALE, "HS": 32, "PARTS": 32})
        backward = {"xhat": x, "dout": x, **tables}
        yield (full.block_full_fp32_bwd_xhat_kernel, {**backward, "g": x, **sums},
               {**gemm, "SCALE": SCALE, "HS": 32})
        yield (full.block_full_fp32_bwd_weights_kernel,
               {**backward, "part_dw1": f32, "part_dw2": f32},
               {**gemm, "SCALE": SCALE, "HS": 64, "STAGES": 1})
    yield (half_kernels.scale_to_half_kernel, {"x": f32, "y": "*fp16", "scales": f32},
           {"TILE": 64 * C, "BLOCK": 8192, "EARLY": True, **pdl})
    yield (block.block_bwd_conv_kernel,
           {"x": x, "weight": f32, "g": x, "dout": x, "mean": f32, "rstd": f32, **sums, "dx": x,
            "part_dw": f32, "partial_sums": f32, "dw1": f32, "dw2": f32},
           {**march, "SUMS": 64, "H": 2 * C, "CP": sum(widths), "HP": 192, "BLOCK": 64,
            "DEPTH": 64})


def around(capability, dtype, C, widths):
    """The kernels around the blocks: batch, stem, heads of 1 and 75 taps, loss; x in `dtype`."""
    from cherimoya.ops.counts import kernels as count_head
    from cherimoya.ops.heads import kernels as heads
    from cherimoya.ops.loss import kernels as loss
    from cherimoya.ops.stem import kernels as stem
    from cherimoya.ops.block.weights import column_widths
    from cherimoya.ops.update import kernels as update
    from cherimoya.ops.windows import kernels as gather

    x, f32, i64 = f"*{dtype}", "*fp32", "*i64"
    pdl = {"PDL": capability >= 90}
    plan = {"rows": i64, "shift": i64, "flip": i64}
    yield (gather.one_hot_kernel, {"sequence": "*u8", **plan, "X": f32},
           {"BASES": 4, "BLOCK": 512, **pdl})
    yield (gather.values_kernel, {"values": "*i16", "channels": i64, **plan, "out": f32},
           {"BLOCK": 512, **pdl})
    split = {"C": C, "CA": widths[0], "CB": widths[1]}
    columns = {"KA": 64, "KB": 32} if capability < 90 or dtype == "fp32" else {"KA": 128, "KB": 0}
    windows = {**split, "K": 21, "FIRST": 0, **columns, "BM": 64, "FAST": True, **pdl}
    weights = {"weight": f32, "bias": f32}
    for full in (False, True)[: 2 if dtype == "fp32" else 1]:
        yield (stem.stem_fwd_kernel, {"x": f32, **weights, "out": x},
               {**windows, "FULL": full, "FAST": not full})
    rows = 128 if C > 96 and columns["KB"] == 0 else 64
    yield (stem.stem_bwd_kernel, {"x": f32, **weights, "dout": x, "part_dw": f32},
           {**windows, "BM": rows, "EARLY": True})
    yield (stem.stem_reduce_kernel, {"part_dw": f32, "dweight": f32, "dbias": f32},
           {"C": C, "K": 21, "BLOCK": 32, "DEPTH": 128, **pdl})
    yield (update.settle_kernel,
           {**dict.fromkeys(("losses", "rates", "now", "failed", "found_inf"), f32),
            "count": i64, "sums": "*fp64"}, {"K": 4, "KP": 4, **pdl})
    yield (update.average_kernel, {"pieces": i64, "decay": f32, "found_inf": f32},
           {"BLOCK": 1024, **pdl})
    rows = min(96 if capability == 89 else 128, C)  # that have room, see `fits_muon`
    first, second = column_widths(2 * rows)
    yield (update.muon_kernel,
           {"parameters": i64, **dict.fromkeys(("gradients", "momentum", "lr", "found_inf"), f32)},
           {"ROWS": rows, "COLS": 2 * rows, "RP": triton.next_power_of_2(rows), "CA": first,
            "CB": second, "STEPS": 5, "DT": triton.language.bfloat16, **pdl})
    groups = {"G": 2, "GROUPS": (1, 2), "BLOCK": 1024, **pdl}
    yield loss.loss_fwd_kernel, {"logits": f32, "signal": f32, "rows": f32}, groups
    names = ("rows", "log_counts", "w0", "w1", "total", "profile", "count", "coefficients")
    yield (loss.loss_reduce_kernel, dict.fromkeys(names, f32),
           {"G": 2, "GP": 2, "ROWS": 64, "LEARNED": True, "PENALTY": True, **pdl})
    product = {"F": C, "G": 2, **pdl}
    yield (count_head.counts_fwd_kernel, {"features": f32, **weights, "out": f32},
           {**product, "FP": triton.next_power_of_2(C), "BN": 8})
    names = ("dout", "features", "weight", "dfeatures", "dweight", "dbias")
    yield (count_head.counts_bwd_kernel, dict.fromkeys(names, f32),
           {**product, "BF": 32, "BN": 64})
    names = ("dtotal", "logits", "log_counts", "signal", "rows", "coefficients", "dlogits",
             "dlog_counts", "dw0", "dw1")
    yield loss.loss_bwd_kernel, dict.fromkeys(names, f32), {**groups, "WEIGHTS": True}
    head = {**split, "G": 2, **pdl}
    ends = {"logits": f32, "part_features": f32}
    yield heads.point_heads_fwd_kernel, {"x": x, **weights, **ends}, {**head, "BM": 64}
    yield (heads.heads_features_kernel, {"part_features": f32, "features": f32},
           {"C": C, "BLOCK": 32, "DEPTH": 16, **pdl})
    gradients = {"dlogits": f32, "dfeatures": f32, "dx": x}
    yield (heads.point_heads_bwd_kernel, {"x": x, "weight": f32, **gradients, "parts": f32},
           {**head, "GP": 2, "BM": 64})
    half = x if dtype == "bf16" else f32
    taps = {**head, "K": 75, "TP": 80, "ROUND": True}
    table = {"C": C, "CP": sum(widths), "G": 2, "K": 75, "TP": 80, "BLOCK": 256, "ROUND": True}
    yield heads.heads_table_kernel, {"weight": f32, "table": half}, {**table, **pdl}
    for precision in ("tf32", "tf32x3")[: 2 if dtype == "fp32" else 1]:
        yield (heads.heads_products_kernel, {"x": x, "table": x, "z": f32, "part_features": f32},
               {**taps, "BM": 128, "TAPS": 16, "STAGES": 2, "PRECISION": precision,
                "ROUND": precision == "tf32"})
    yield (heads.heads_diagonals_kernel,
           {"z": f32, "bias": f32, "part_features": f32, "logits": f32, "features": f32},
           {"C": C, "CP": 128, "G": 2, "K": 75, "BLOCK": 128, "DEPTH": 16, **pdl})
    yield (heads.heads_bwd_x_kernel, {"table": half, **gradients},
           {**taps, "BM": 64, "TAPS": 32, "LEAST": 16})
    options = {k: v for k, v in taps.items() if k != "TP"}
    yield (heads.heads_bwd_weight_kernel, {"x": x, "dlogits": f32, "parts": f32},
           {**options, "BM": 64, "TAPS": 128, "STAGES": 2, "HALF": dtype == "bf16"})
    yield (heads.heads_reduce_kernel, {"parts": f32, "dweight": f32, "dbias": f32},
           {"C": C, "G": 2, "K": 75, "BLOCK": 32, "DEPTH": 128, **pdl})


def hopper(C, widths):
    """The Gluon kernels with each of their launch options."""
    from cherimoya.ops.block import hopper_fp32_kernels as single, hopper_kernels as half
    from cherimoya.ops.block.hopper_bwd_kernels import hopper_bwd_kernel
    from cherimoya.ops.block import hopper_launch as launch

    f32 = "*fp32"
    ca, cb = widths[0], widths[1] or widths[0]
    parts = dict.fromkeys(
        ("weight", "part_mean", "part_m2", "part_count", "mean_out", "rstd_out"), f32)

    def of(dtype, box, layout):
        return f"tensordesc<{dtype}[{', '.join(map(str, box))}],{layout!r}>"

    def rows(names, dtype):
        return {n: of(dtype, (1, 64, w), launch._layout(w, 3))
                for n, w in zip(names, (ca, cb))}

    def tables(names, dtype):
        return {n: of(dtype, (64, w), launch._layout(w, 2)) for n, w in zip(names, (ca, cb))}

    sizes = {"C": C, "CA": widths[0], "CB": widths[1], "HS": 64, "CHUNKS": 2 * C // 64, "PDL": True}
    fits = lambda choices, size: launch._fitting(choices, C, 2 * C, size)
    for config in fits(launch.FORWARD, 3 * 64 * 2 * C):
        entry, kept = launch.REGISTERS[config["consumers"]]
        yield (half.hopper_fwd_kernel,
               {**rows(("xa", "xb"), "bf16"), **tables(("w1a", "w1b"), "bf16"),
                **tables(("w2a", "w2b"), "fp16"), **parts, "out": "*bf16", "xhat": "*bf16"},
               {**sizes, "STAGES": config["stages"], "CONSUMERS": config["consumers"],
                "PARTS": 32, "KEEP": True, "ROLLED": bool(config["rolled"]), "REGISTERS": kept},
               entry)
    for config in fits(launch.BACKWARD, 2 * 64 * 2 * C):
        entry, kept = launch.REGISTERS[config["consumers"]]
        yield (half.hopper_bwd_xhat_kernel,
               {**rows(("va", "vb"), "bf16"), **rows(("ya", "yb"), "bf16"),
                **tables(("w1a", "w1b"), "bf16"), **tables(("w2a", "w2b"), "bf16"),
                "scales": f32, "g": "*bf16", "sum_g": f32, "sum_gx": f32},
               {**sizes, "STAGES": config["stages"], "CONSUMERS": config["consumers"],
                "SCALED": False, "EARLY": True, "REGISTERS": kept}, entry)
    chunks_of_c = [
        k for channels, fewest, most in launch.JOINT_SIZES if channels == C
        for k in range(-(-fewest // 64), most // 64 + 1)
    ]
    for config, chunks, sums, scaled in itertools.product(
        launch.JOINT, chunks_of_c, (4, 1), (False, True)
    ):
        entry, kept = launch.JOINT_REGISTERS
        dtype = "fp16" if scaled else "bf16"
        yield (hopper_bwd_kernel,
               {**rows(("va", "vb"), dtype), **rows(("ya", "yb"), dtype),
                **tables(("w1a", "w1b"), dtype), **tables(("w2a", "w2b"), dtype), "scales": f32,
                "g": f32 if scaled else "*bf16",
                **dict.fromkeys(("sum_g", "sum_gx", "part_dw1", "part_dw2"), f32)},
               {"C": C, "CA": widths[0], "CB": widths[1], "CHUNKS": chunks, "PDL": True,
                "STAGES": config["stages"], "SLOTS": config["slots"], "SUMS": sums,
                "P": launch.joint_positions(C), "SCALED": scaled, "EARLY": not scaled,
                "REGISTERS": kept}, entry)
    for config in fits(launch.FORWARD_FP32, 2 * 3 * 64 * 32 * 4):
        entry, kept = launch.REGISTERS[2]
        yield (single.hopper_fwd_fp32_kernel,
               {"xd": of("fp32", (1, 64, 32), launch._layout_fp32()),
                "w1d": of("fp16", (64, 32), launch._layout(32, 2)),
                **tables(("w2a", "w2b"), "fp16"), **parts, "out": f32, "xhat": "*fp16"},
               {**sizes, "STAGES": config["stages"], "PARTS": 32, "KEEP": True,
                "ROLLED": bool(config["rolled"]), "REGISTERS": kept}, entry)


def marches():
    """The march of the backward by its default options, and by those for 96 filters."""
    from cherimoya.ops.block import kernels as block
    from cherimoya.ops.conv_norm import launch

    half, full = launch.BACKWARD, launch.BACKWARD_FP32
    shipped = {"columns": 32, "rows": 8, "steps": 9, "ahead": 4, "num_warps": 2}
    for dtype, config in (("bf16", half[0]), ("bf16", shipped), ("fp32", full[0])):
        assert config in half
        march = launch.March.over(2114, 1, 96, config)
        pointers = dict.fromkeys(("x", "g", "dout", "dx"), f"*{dtype}") | dict.fromkeys(
            ("weight", "mean", "rstd", "sum_g", "sum_gx", "part_dw", "partial_sums", "dw1", "dw2"),
            "*fp32")
        constants = {**march.options, "SUMS": 256, "H": 192, "CP": 96, "HP": 192, "BLOCK": 64,
                     "DEPTH": 64, "PDL": True}
        num_warps = constants.pop("num_warps")
        yield (block.block_bwd_conv_kernel, pointers, constants,
               {"num_warps": num_warps, **launch.registers(config)})


EVENTS = (r"cp\\.async\\.wait_(?:group|all)|fence\\.proxy\\.async|wgmma\\.mma_async"
          r"|mbarrier\\.try_wait|mbarrier\\.arrive\\.shared")


def missing_fences(ptx):
    """Places where shared memory goes from ordinary accesses to the asynchronous proxy's, unfenced.

    What cp.async copied, to wgmma; what a consumer has read, to the copy engine.
    """
    missing, copied, fenced = 0, False, False
    for event in re.findall(EVENTS, ptx):
        if "fence" in event:
            copied, fenced = False, True
        elif "try_wait" in event:
            fenced = False
        elif "arrive" in event:
            missing += not fenced
        elif "wgmma" in event:
            missing, copied = missing + copied, False
        else:
            copied = True
    return missing


def report(kernel, done):
    ptx = done.asm["ptx"]
    facts = [kernel.__name__, done.metadata.shared, "wgmma" in ptx, missing_fences(ptx)]
    print(json.dumps(facts))


def assembler_says(ptx):
    """What ptxas remarks on the way from PTX to sm_90a."""
    with tempfile.NamedTemporaryFile("w", suffix=".ptx") as file:
        file.write(ptx)
        file.flush()
        ptxas = triton.knobs.nvidia.ptxas.path
        command = [ptxas, "-v", "--gpu-name=sm_90a", file.name, "-o", os.devnull]
        return subprocess.run(command, capture_output=True, text=True, check=True).stderr


def main():
    kind, *arguments = json.loads(sys.argv[1])
    if kind == "hopper":
        from triton.experimental.gluon._runtime import GluonASTSource

        for kernel, pointers, constants, registers in hopper(*arguments):
            done = compiled(kernel, GluonASTSource, pointers, constants, 90,
                            num_warps=4, maxnreg=registers)
            report(kernel, done)
            # else products wait for each other, for want of registers
            assert "serialized" not in assembler_says(done.asm["ptx"]), (kernel, constants)
    elif kind == "marches":
        for kernel, pointers, constants, options in marches():
            done = compiled(kernel, ASTSource, pointers, constants, 90, **options)
            report(kernel, done)
            assert " 0 bytes spill stores" in assembler_says(done.asm["ptx"]), (kernel, constants)
    else:
        capability, *arguments = arguments
        kernels = {"plain": plain, "around": around}[kind]
        for kernel, pointers, constants in kernels(capability, *arguments):
            done = compiled(kernel, ASTSource, pointers, constants, capability, num_warps=4)
            report(kernel, done)


main()
'''

SHARED_BYTES = {80: 163 * 1024, 89: 99 * 1024, 90: 227 * 1024}  # that one program may have


def compile_all(*request: object) -> list[tuple[str, int, bool]]:
    """Name, bytes of shared memory and use of wgmma of each kernel that was compiled.

    No kernel lacks a fence, see `missing_fences`.
    """
    done = subprocess.run(
        [sys.executable, "-c", COMPILE, json.dumps(request)],
        env=clean_environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [name for name, _, _, missing in found if missing] == []
    return [(name, shared, wgmma) for name, shared, wgmma, _ in found]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("capability", "dtype", "channels", "widths", "single"),
    [
        (80, "bf16", 96, (64, 32), False),
        (89, "fp16", 128, (128, 0), False),
        (80, "fp32", 40, (32, 16), True),
        (90, "fp32", 96, (64, 32), True),
    ],
)
def test_the_plain_kernels_compile(capability, dtype, channels, widths, single):
    found = compile_all("plain", capability, dtype, channels, widths, single)
    assert len({name for name, _, _ in found}) == (14 if single else 11)
    assert max(shared for _, shared, _ in found) <= SHARED_BYTES[capability]
    assert capability >= 90 or not any(wgmma for _, _, wgmma in found)


@pytest.mark.slow
def test_the_march_of_the_backward_keeps_all_in_registers():
    assert len(compile_all("marches")) == 3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("capability", "dtype", "channels", "widths"),
    [
        (80, "bf16", 96, (64, 32)),
        (89, "fp16", 128, (128, 0)),
        (90, "fp32", 96, (64, 32)),
        (90, "bf16", 128, (128, 0)),
    ],
)
def test_the_kernels_around_the_blocks_compile(capability, dtype, channels, widths):
    found = compile_all("around", capability, dtype, channels, widths)
    assert len({name for name, _, _ in found}) == 22
    assert max(shared for _, shared, _ in found) <= SHARED_BYTES[capability]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("channels", "widths"), [(32, (32, 0)), (64, (64, 0)), (96, (64, 32)), (128, (128, 0))]
)
def test_the_hopper_kernels_compile_with_every_launch_option(channels, widths):
    found = compile_all("hopper", channels, widths)
    assert len({name for name, _, _ in found}) == (4 if channels in (64, 96) else 3)
    assert max(shared for _, shared, _ in found) <= SHARED_BYTES[90]
    assert all(wgmma for _, _, wgmma in found)
