"""Directives that write the reference out of the package: keys of commands, options of groups."""

import re
import shutil
from collections.abc import Iterator, Mapping
from importlib.metadata import metadata, requires
from pathlib import Path
from typing import Any

import architecture
from docutils import nodes
from docutils.statemachine import StringList
from omegaconf import OmegaConf
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from cherimoya.cli import commands, help
from cherimoya.cli.doctor import EXTRA, NAME, PACKAGE
from cherimoya.config import groups
from cherimoya.config.command_line import conf_dir
from cherimoya.config.diff import hydra_value
from cherimoya.config.explain import explained, option_files, read_comments, sentences
from cherimoya.config.train import TrainConfig


def schema_of(command: str) -> type:
    """The dataclass of a command's configuration."""
    if command == "train":
        return TrainConfig
    found: type = getattr(commands, command).args[1]
    return found


def rows(command: str, words: tuple[str, ...], only: str) -> Iterator[tuple[str, str, str, str]]:
    """Key, default, values and sentence of each key of a command that begins with `only`."""
    schema = schema_of(command)
    with groups.initialized():
        values, choices = groups.compose(command, words)
    content: Any = OmegaConf.to_container(values)
    defaults: Mapping[str, Any] = dict(help.leaves(content, schema))
    for key in explained(schema, defaults, sentences(command, choices)):
        if key.name == only or key.name.startswith(f"{only}.") or not only:
            value = defaults[key.name]
            shown = "required" if value == help.NEEDED else hydra_value(value)
            yield key.name, shown, key.kind, key.sentence


def table(header: list[str], lines: list[list[str]], code: int) -> list[str]:
    """A Markdown table; the first `code` columns are code."""
    found = [f"| {' | '.join(header)} |", "|" + "---|" * len(header)]
    for cells in lines:
        shown = [
            f"`{cell.replace('|', chr(92) + '|')}`" if i < code and cell else plain(cell)
            for i, cell in enumerate(cells)
        ]
        found.append(f"| {' | '.join(shown)} |")
    return found


def plain(text: str) -> str:
    """Text whose signs mean nothing to Markdown, but for code in `...`."""
    parts = text.split("`")
    parts[::2] = [re.sub(r"([\\*_\[\]<>|$])", r"\\\1", part) for part in parts[::2]]
    return "`".join(parts)


class Reference(SphinxDirective):
    """What the directives share: Markdown lines, read as if they stood on the page."""

    optional_arguments = 9
    has_content = False

    def lines(self) -> list[str]:
        """The Markdown."""
        raise NotImplementedError

    def run(self) -> list[nodes.Node]:
        node = nodes.section()
        node.document = self.state.document
        self.state.nested_parse(StringList(self.lines(), source="reference"), 0, node)
        return node.children


class Keys(Reference):
    """{keys} COMMAND [only=PREFIX] [option ...]: a table of keys."""

    def lines(self) -> list[str]:
        command, *words = self.arguments
        only = next((w.removeprefix("only=") for w in words if w.startswith("only=")), "")
        own = tuple(w for w in words if not w.startswith("only="))
        found = [list(row) for row in rows(command, own, only)]
        if not found:
            raise self.error(f"no key of {command} begins with {only}")
        return table(["key", "default", "values", "what it does"], found, 2)


class Options(Reference):
    """{options} GROUP: a table of the files of a group."""

    required_arguments = 1

    def lines(self) -> list[str]:
        group = self.arguments[0]
        found = [
            [f"{group}={name}", read_comments(path).of_file]
            for name, path in option_files(group).items()
        ]
        return table(["option", "what it is"], found, 1)


class About(Reference):
    """{about} COMMAND: the words that --help begins with."""

    required_arguments = 1

    def lines(self) -> list[str]:
        head = OmegaConf.load(conf_dir() / f"{self.arguments[0]}.yaml").hydra.help
        return ["```text", *head.template.rstrip().splitlines(), "```"]


class Licences(Reference):
    """{licences}: what the package asks for, by its metadata and theirs."""

    def lines(self) -> list[str]:
        found: dict[str, list[str]] = {}
        for words in requires(PACKAGE) or ():
            name, extra = NAME.match(words), EXTRA.search(words)
            kind = extra[1] if extra else ""
            if name and kind not in ("dev", "docs") and not name[0].startswith(PACKAGE):
                found.setdefault(name[0], []).append(kind)
        rows = []
        for name, extras in sorted(found.items(), key=lambda item: (item[1], item[0])):
            listed = ", ".join(f"`[{extra}]`" for extra in extras if extra)
            rows.append([name, licence_of(name), listed])
        return table(["package", "licence", "extra"], rows, 0)


def licence_of(name: str) -> str:
    """A package's licence, in its own words."""
    told = metadata(name)
    if said := told.get("License-Expression"):
        return said
    classified = [c.split(" :: ")[-1] for c in told.get_all("Classifier", ()) if "License ::" in c]
    return ", ".join(classified) or (told.get("License") or "see the package").split("\n")[0][:60]


def copy_pages(docs: Path) -> None:
    """Put the pages that commands made, as experiments/ keeps them, where the gallery links to."""
    (docs / "_static" / "pages").mkdir(parents=True, exist_ok=True)
    for page in docs.parent.glob("experiments/*/*.html"):
        name = page.parent.name if page.stem == "report" else page.stem
        shutil.copy(page, docs / "_static" / "pages" / f"{name}.html")


def setup(app: Sphinx) -> dict[str, bool]:
    """Make the directives known to Sphinx."""
    known = (("keys", Keys), ("options", Options), ("about", About), ("licences", Licences))
    for name, directive in known:
        app.add_directive(name, directive)
    app.connect("builder-inited", lambda app: architecture.write(Path(app.srcdir) / "_static"))
    app.connect("builder-inited", lambda app: copy_pages(Path(app.srcdir)))
    return {"parallel_read_safe": True}
