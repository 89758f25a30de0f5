"""Each number of the documentation that looks measured is one of a results file."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from claims import CLAIMS
from not_measured import NOT_MEASURED

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    "README.md", "CHANGELOG.md",
    *sorted(str(p.relative_to(ROOT)) for p in (ROOT / "docs").rglob("*.md")),
    *sorted(str(p.relative_to(ROOT)) for p in (ROOT / "conf").rglob("*.yaml")),
]  # fmt: skip
NUMBER = r"(?<![\w.,/+])-?\d(?:[\d,]*\d)?(?:\.\d+)?(?:e-?\d+)?(?![\d.]*\.\d)(?!\w)"
UNIT = (
    r"(?:ms|us|s|min|h|[KMG]i?B|gigabytes|megabytes|megabases|%|times|x|seconds?|minutes?|hours?|days?"
    r"|sequences|parameters|steps|fragments|variants|examples|tests)(?!\w)"
)
LINK = r"(?: (?:and|to|or|against|in|of|with) |, | - )"
WORD = r"(?:one|two|three|four|five|six|seven|eight|nine|ten|twelve|fifteen|twenty|thirty|sixty)"
LOOKS_MEASURED = re.compile(
    rf"{NUMBER}(?=(?:{LINK}{NUMBER})* ?{UNIT})"  # with a unit, its own or that of the next ones
    r"|(?<![\w.,/+])-?\d[\d,]*\.\d+(?:e-?\d+)?(?!\.?\w)|(?<![\w.])\d+e-\d+"  # a decimal
    rf"|\b{WORD}(?= (?:seconds?|minutes?|hours?|times)\b)|\b(?:half an?|an|a) (?:minute|hour)\b"
    r"|\b(?:a|one|two|three) (?:half|third|quarter|tenth)s?(?= of)|\bhalf(?= of)"
)


def without_code(text: str, yaml: bool) -> str:
    """The text with other signs in the place of code, as long as before; comments stay."""
    lines, fenced = [], yaml
    for line in text.splitlines(keepends=True):
        fence = not yaml and line.lstrip().startswith("```")
        fenced ^= fence
        code = line if fence or fenced else ""
        code = code.partition("#" if yaml else " #")[0]
        lines.append(hidden(code) + line[len(code) :])
    text = re.sub(r"`[^`\n]*`", lambda m: hidden(m[0]), "".join(lines))
    return re.sub(r"\]\([^)\s]*\)|https?://\S+", lambda m: hidden(m[0]), text)


def hidden(text: str) -> str:
    """Dashes for all but white space."""
    return re.sub(r"\S", "~", text)


def joined(text: str, yaml: bool) -> str:
    """Lines as one, so that a sentence does not end with them."""
    return " ".join((re.sub(r"(?m)^#", " ", text) if yaml else text).split())


def read(page: str) -> tuple[str, str]:
    """What a page says, and the same without its code, letter by letter."""
    text, yaml = (ROOT / page).read_text(), page.endswith(".yaml")
    return joined(text, yaml), joined(without_code(text, yaml), yaml)


def places(text: str, piece: str) -> Iterator[tuple[int, int]]:
    """Where a piece stands in a text."""
    for found in re.finditer(re.escape(piece), text):
        yield found.span()


def said(text: str, numbers: tuple[float, ...]) -> str:
    """The words of a claim; exponents as 1e-4, not 1e-04."""
    return re.sub(r"e-0(\d)", r"e-\1", text.format(*numbers))


@pytest.mark.parametrize("claim", CLAIMS, ids=[f"{c[0][0]}: {c[1][:40]}" for c in CLAIMS])
def test_what_is_said_is_in_the_record(claim):
    pages, text, numbers = claim
    sentence = said(text, numbers())
    for page in pages:
        assert list(places(read(page)[0], sentence)), f"{page} does not say: {sentence}"


def unclaimed(page: str, text: str, prose: str) -> list[str]:
    """What looks measured on a page, neither claimed nor excepted, and what stands around it."""
    known = [
        span
        for pages, claim, numbers in CLAIMS if page in pages
        for span in places(text, said(claim, numbers()))
    ]  # fmt: skip
    for pages, piece, _ in NOT_MEASURED:
        if re.fullmatch(pages, page):
            known += [found.span() for found in re.finditer(piece, text)]
    return [
        f"{found[0]!r} in: ...{text[max(0, found.start() - 40) : found.end() + 40]}..."
        for found in LOOKS_MEASURED.finditer(prose)
        if not any(a <= found.start() and found.end() <= b for a, b in known)
    ]


@pytest.mark.parametrize("page", PAGES)
def test_every_number_is_claimed(page):
    """To mend it: a claim (support/claims.py), or why it is none (support/not_measured.py)."""
    assert unclaimed(page, *read(page)) == []


@pytest.mark.parametrize("said", [
    "takes 5.1 s.", "about 3 minutes", "in two minutes", "12 to 14 % of it", "2 times as fast",
    "a score of 0.74", "within 1e-4", "half an hour", "a quarter of the time", "40,000 parameters",
    "| 3 | 31 and 35 ms |", "needs 4 GB", "4 GB",
])  # fmt: skip
def test_a_new_number_is_noticed(said):
    assert unclaimed("docs/new.md", said, said), said


@pytest.mark.parametrize("said", ["torch 2.11.0", "two cores", "step 3", "chr1", "hg38", "x + 2"])
def test_what_is_no_number_is_not(said):
    assert not unclaimed("docs/new.md", said, said)


@pytest.mark.parametrize("exception", NOT_MEASURED, ids=[e[1][:40] for e in NOT_MEASURED])
def test_exceptions_are_of_use(exception):
    """One whose words are gone is taken out."""
    pages, piece, why = exception
    assert why
    where = [page for page in PAGES if re.fullmatch(pages, page)]
    assert any(re.search(piece, read(page)[0]) for page in where), piece
