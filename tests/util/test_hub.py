"""Addresses of the Hugging Face Hub, and what is said where a file cannot be had."""

import errno
import re
import sys
import time
from types import SimpleNamespace

import pytest
from command_lines import python
from fake_hub import NEW, OLD, FakeHub, fake_hub

from cherimoya.errors import ConfigError, PackageError
from cherimoya.inference.checkpoints import find_checkpoint
from cherimoya.util import hub as hub_module
from cherimoya.util.hub import Address, fetch, is_address, parse_address

FETCH = """
import sys
from cherimoya.errors import CherimoyaError
from cherimoya.util.console import print_messages
from cherimoya.util.hub import fetch
print_messages()
try:
    found = fetch(sys.argv[1], "checkpoint")
    print(found.commit, found.path.read_text())
except CherimoyaError as error:
    print(f"{type(error).__name__}: {error}")
"""


@pytest.fixture
def hub(tmp_path):
    with fake_hub(tmp_path / "home") as made:
        made.put("lab/model", "best.pt", b"new")
        made.put("lab/model", "runs/b.safetensors", b"other")
        made.put("lab/model", "README.md", b"words")
        made.put("lab/model", "best.pt", b"old", OLD)
        made.put("lab/words", "README.md", b"words")
        made.status |= {"lab/gated": (403, "GatedRepo"), "lab/closed": (403, "")}
        yield made


def fetched(hub: FakeHub, named: str, **environment: str) -> str:
    done = python(FETCH, named, folder=hub.home.parent, **(hub.environment | environment))
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_an_address_is_owner_name_file_and_revision():
    assert parse_address("hf://lab/model/a.pt") == Address("lab/model", "a.pt", "main")
    assert parse_address("hf://lab/model/runs/1/a.pt@v1") == Address(
        "lab/model", "runs/1/a.pt", "v1"
    )
    assert parse_address("hf://l/m/a.pt@refs/pr/1").revision == "refs/pr/1"
    assert is_address("hf://lab/model/a.pt")
    assert not is_address("outputs/hf/a.pt")


@pytest.mark.parametrize(("named", "said"), [
    ("hf://lab", "names no repository"),
    ("hf://", "names no repository"),
    ("hf:///model/a.pt", "names no repository"),
    ("hf://lab/model", "names no file"),
    ("hf://lab/model/", "names no file"),
    ("hf://lab/model/../a.pt", "names no file"),
    ("hf://lab/model@v1", "names no file"),
    ("hf://lab/model@v1/a.pt", "the revision comes last"),
    ("hf://lab/model/a.pt@", "names no revision"),
    ("hf://datasets/lab/cells/a.pt", "datasets of the Hub hold no models"),
    ("hf:/lab/model/a.pt", "two slashes"),
])  # fmt: skip
def test_another_one_is_refused_with_what_to_write(named, said):
    with pytest.raises(ConfigError) as raised:
        parse_address(named, "model.init")
    assert str(raised.value).startswith(f"model.init={named}: ")
    assert said in str(raised.value)
    assert "Write hf://owner/name/path/to/file, and behind it @" in str(raised.value)


@pytest.mark.parametrize(("named", "meant"), [
    ("hf://lab/model/a.pt?download=true", "hf://lab/model/a.pt"),
    ("HF://lab/model/a.pt", "hf://lab/model/a.pt"),
    ("hf://lab/model/resolve/main/runs/a.pt", "hf://lab/model/runs/a.pt"),
    ("https://huggingface.co/lab/model/resolve/main/a.pt", "hf://lab/model/a.pt"),
    ("https://huggingface.co/lab/model/resolve/main/a.pt?download=true", "hf://lab/model/a.pt"),
    ("https://huggingface.co/lab/model/blob/v1/runs/a%20b.pt", "hf://lab/model/runs/a b.pt@v1"),
    ("https://hf.co/lab/model/blob/refs%2Fpr%2F1/a.pt", "hf://lab/model/a.pt@refs/pr/1"),
])  # fmt: skip
@pytest.mark.parametrize("read", [fetch, find_checkpoint])
def test_an_address_as_a_browser_has_it_is_refused_with_ours(read, named, meant):
    with pytest.raises(ConfigError, match=f"^{re.escape(f'x={named}: write x={meant}.')}$"):
        read(named, "x")


def test_another_web_site_is_none():
    with pytest.raises(ConfigError, match=r"no file of the Hugging Face Hub, .* Write hf://owner"):
        parse_address("https://example.org/a.pt")


def test_a_hub_that_cannot_be_reached_is_told_at_once(tmp_path):
    """Not after half a minute, and without huggingface_hub's lines; what is there is taken."""
    with fake_hub(tmp_path / "home") as hub:
        hub.put("lab/model", "best.pt", b"new")
        fetched(hub, "hf://lab/model/best.pt")
    began = time.monotonic()
    done = python(FETCH, "hf://lab/model/b.pt", folder=tmp_path, **hub.environment)
    assert time.monotonic() - began < 20
    assert done.stderr == ""
    said = f"ConfigError: checkpoint=hf://lab/model/b.pt: {hub.url} cannot be asked for it ("
    assert done.stdout.startswith(said)
    assert "Check the network, proxies and HF_ENDPOINT" in done.stdout
    assert done.stdout.count("\n") == 1
    again = f"hub          hf://lab/model/best.pt: in the cache, commit {NEW}\n{NEW} new\n"
    assert fetched(hub, "hf://lab/model/best.pt") == again


def test_a_file_is_downloaded_once_and_a_branch_is_a_commit(hub):
    address = "hf://lab/model/best.pt"
    said = f"hub          {address}: downloading 3 bytes, commit {NEW}\n{NEW} new\n"
    assert fetched(hub, address) == said
    assert len(hub.downloads()) == 1
    again = f"hub          {address}: in the cache, commit {NEW}\n{NEW} new\n"
    assert fetched(hub, address) == again
    assert fetched(hub, address, HF_HUB_OFFLINE="1") == again
    assert len(hub.downloads()) == 1
    for revision in ("v1", OLD):
        assert fetched(hub, f"{address}@{revision}").endswith(f"commit {OLD}\n{OLD} old\n")
    assert len(hub.downloads()) == 2


def test_a_branch_that_moved_is_followed(hub):
    address = hub.put("lab/model", "best.pt", b"newest", "c" * 40)
    assert fetched(hub, address).endswith("new\n")
    hub.heads["main"] = "c" * 40
    assert fetched(hub, address).endswith(f"{'c' * 40} newest\n")


@pytest.mark.parametrize(("named", "words"), [
    ("hf://lab/model/beste.pt",
     ["/lab/model has no file beste.pt at main. It has best.pt, runs/b.safetensors."]),
    ("hf://lab/words/best.pt", ["It has no .pt, .torch or .safetensors file"]),
    ("hf://lab/model/best.pt@v2", ["/lab/model has no branch, tag or commit v2"]),
    ("hf://lab/none/best.pt", ["there is no http://", "/lab/none, or it is private",
                               "`hf auth login`", "HF_TOKEN"]),
    ("hf://lab/gated/best.pt", ["is gated", "Ask for access at http://", "`hf auth login`"]),
    ("hf://lab/closed/best.pt", ["refuses it (status 403)", "HF_TOKEN"]),
    ("hf://l--b/model/best.pt", ["Write hf://owner/name"]),
])  # fmt: skip
def test_what_is_not_there_is_told_in_one_message(hub, named, words):
    said = fetched(hub, named)
    assert said.startswith(f"ConfigError: checkpoint={named}: ")
    assert said.count("\n") == 1
    for word in words:
        assert word in said


def test_offline_and_not_in_the_cache(hub):
    said = fetched(hub, "hf://lab/model/best.pt", HF_HUB_OFFLINE="1")
    assert f"it is not in the cache, {hub.home}/hub, and HF_HUB_OFFLINE is set" in said
    assert "hf download lab/model best.pt" in said
    assert not hub.asked


@pytest.mark.parametrize(("raised", "words"), [
    (ConnectionError("no route\nto host"), ["cannot be asked for it (no route)", "HF_ENDPOINT"]),
    (OSError(errno.ENOSPC, "No space left on device", "/home/x"),
     ["/home/x: No space left on device", "HF_HOME"]),
])  # fmt: skip
def test_what_the_network_and_the_disk_refuse(raised, words, monkeypatch):
    def fails(*_, dry_run=False, **__):
        raise raised

    real = hub_module.import_optional
    fake = SimpleNamespace(
        hf_hub_download=fails, get_hf_file_metadata=fails, hf_hub_url=lambda **_: "",
        try_to_load_from_cache=lambda **_: None,
    )  # fmt: skip
    monkeypatch.setattr(
        hub_module, "import_optional",
        lambda name: fake if name == "huggingface_hub" else real(name),
    )  # fmt: skip
    with pytest.raises(ConfigError) as told:
        fetch("hf://lab/model/best.pt", "checkpoint")
    for word in ["checkpoint=hf://lab/model/best.pt: ", *words]:
        assert word in str(told.value)


def test_without_the_package_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(PackageError, match=r"pip install 'cherimoya-train\[hub\]'"):
        fetch("hf://lab/model/best.pt")


def test_a_package_that_is_too_old_is_to_be_upgraded(monkeypatch):
    old = SimpleNamespace(hf_hub_download=lambda repo_id, filename: "", __version__="0.20.1")
    monkeypatch.setattr(hub_module, "import_optional", lambda name: old)
    with pytest.raises(PackageError, match=r"huggingface_hub 0\.20\.1 is too old .*--upgrade"):
        fetch("hf://lab/model/best.pt")
