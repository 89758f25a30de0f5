"""The formats of exported models: each written, and read back as somebody else would."""

import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cherimoya.config.export import ONNX, SAFETENSORS, TORCH_EXPORT
from cherimoya.errors import CherimoyaError
from cherimoya.network import Cherimoya
from cherimoya.ops.dispatch import plain_pytorch
from cherimoya.util.model_file import write_safetensors
from cherimoya.util.optional import import_optional

OPSET = 18  # of ONNX: the oldest that PyTorch writes without converting, so that most can read it
INPUTS, OUTPUTS = ("sequence", "control"), ("profile", "counts")
BATCH = "batch"  # the dimension of any size
FACTS = "cherimoya.json"  # in a file of torch.export
SOURCES = ("stack_trace", "nn_module_stack", "torch_fn", "source_fn_stack")  # of this machine
LOUD = ("torch.onnx", "torch.export", "torch._export", "onnxscript", "onnx_ir")  # loggers

Run = Callable[[Tensor, Tensor | None], tuple[Tensor, Tensor]]  # sequences and controls, or none


@dataclass(frozen=True)
class Format:
    """How a model is written and read back.

    words: what it is; packages: that it needs; tolerance: the largest difference of answers, as a
    share of the largest one; write: a file of a model, for so many bases, with JSON-ready facts
    """

    words: str
    packages: tuple[str, ...]
    tolerance: float
    write: Callable[[Path, Cherimoya, int, Mapping[str, Any]], None]
    read: Callable[[Path], Run]

    def check(self) -> None:
        """Raise PackageError where a package is not installed."""
        for name in self.packages:
            import_optional(name)


class _Named(nn.Module):
    """The model with the inputs' names of the file."""

    def __init__(self, model: Cherimoya) -> None:
        super().__init__()
        self.model = model

    def forward(self, sequence: Tensor, control: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Profile logits and log counts, as of `Cherimoya.forward`."""
        return self.model(sequence, control)


def _safetensors(path: Path, model: Cherimoya, _: int, facts: Mapping[str, Any]) -> None:
    write_safetensors(path, model.state_dict(), facts)


def _run_safetensors(path: Path) -> Run:
    return Cherimoya.load(path, bias=None).eval()


def _torch_export(path: Path, model: Cherimoya, length: int, facts: Mapping[str, Any]) -> None:
    program = _program(model, length)
    with quiet():
        torch.export.save(program, made := io.BytesIO(), extra_files={FACTS: json.dumps(facts)})
    path.write_bytes(made.getbuffer())


def _run_torch_export(path: Path) -> Run:
    with quiet():
        module = torch.export.load(io.BytesIO(path.read_bytes())).module()

    @torch.no_grad()
    def run(sequence: Tensor, control: Tensor | None) -> tuple[Tensor, Tensor]:
        return module(sequence) if control is None else module(sequence, control)

    return run


def _onnx(path: Path, model: Cherimoya, length: int, facts: Mapping[str, Any]) -> None:
    program = _program(model, length)
    with quiet(), _followed(model, "onnx"):
        names = INPUTS[: 1 + bool(model.n_control_tracks)]
        made = torch.onnx.export(
            program, (), None, dynamo=True, opset_version=OPSET, verbose=False,
            input_names=names, output_names=OUTPUTS,
        )  # fmt: skip
        assert made is not None
        proto = made.model_proto
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = BATCH
    del proto.graph.value_info[:]  # which name that dimension otherwise
    for node in proto.graph.node:
        del node.metadata_props[:]
    for key, fact in facts.items():
        proto.metadata_props.add(key=key, value=json.dumps(fact))
    import_optional("onnx").checker.check_model(proto)
    path.write_bytes(proto.SerializeToString())


def _run_onnx(path: Path) -> Run:
    runtime: Any = import_optional("onnxruntime")
    session = runtime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])

    def run(sequence: Tensor, control: Tensor | None) -> tuple[Tensor, Tensor]:
        given = [sequence] if control is None else [sequence, control]
        named = {name: value.numpy() for name, value in zip(INPUTS, given, strict=False)}
        profile, counts = session.run(list(OUTPUTS), named)
        return torch.from_numpy(profile), torch.from_numpy(counts)

    return run


def _program(model: Cherimoya, length: int) -> torch.export.ExportedProgram:
    """The model as a graph of PyTorch's own operations, for any number of sequences."""
    n = torch.export.Dim(BATCH)
    given = {"sequence": torch.zeros(2, 4, length)}
    if model.n_control_tracks:
        given["control"] = torch.zeros(2, model.n_control_tracks, length)
    with quiet(), plain_pytorch(), _followed(model, "torch_export"), torch.no_grad():
        program = torch.export.export(
            _Named(model).eval(), tuple(given.values()),
            dynamic_shapes={name: {0: n} for name in given}, strict=False,
        )  # fmt: skip
    for module in program.graph_module.modules():
        for node in getattr(getattr(module, "graph", None), "nodes", ()):
            for said in SOURCES:
                node.meta.pop(said, None)
    return program


@contextmanager
def _followed(model: Cherimoya, what: str) -> Iterator[None]:
    """Where an operation that cannot be exported, of a block of the user's own, is a message."""
    try:
        yield
    except CherimoyaError:
        raise
    except Exception as error:  # of many types
        block = model.config.get("block", {}).get("name", "cheri")
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise CherimoyaError(
            f"export={what}: the block {block} does something that cannot be exported ({first}). "
            f"export={SAFETENSORS} keeps every model."
        ) from error


@contextmanager
def quiet() -> Iterator[None]:
    """Where PyTorch's exporters say nothing of what they go through."""
    levels = {name: logging.getLogger(name).level for name in LOUD}
    for name in LOUD:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


FORMATS = {
    SAFETENSORS: Format("safetensors", ("safetensors",), 0.0, _safetensors, _run_safetensors),
    ONNX: Format(
        f"ONNX, opset {OPSET}", ("onnx", "onnxscript", "onnxruntime"), 1e-4, _onnx, _run_onnx
    ),
    TORCH_EXPORT: Format("torch.export", (), 1e-4, _torch_export, _run_torch_export),
}
