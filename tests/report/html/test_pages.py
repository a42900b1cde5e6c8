"""Pages as text: everything escaped, nothing asked of a network, style and script allowed by hash, none too large."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser

from localmel.evaluate.resamples import Estimate
from localmel.report.comparison import ComparisonReport, ShownMention
from localmel.report.html.pages import comparison_page, leaderboard_page
from localmel.report.leaderboard import Leaderboard, LeaderboardRow

from .conftest import HOSTILE, picture

MOST_BYTES = 20_000_000


class Reader(HTMLParser):
    """What a browser would make of the page: tags, attributes, text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        self.open.append(f"/{tag}")

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def test_texts_of_users_open_no_tag_and_set_no_attribute(page: str) -> None:
    reader = Reader(page)
    assert len(reader.named("script")) == 1
    assert [one for one in reader.named("img") if not str(one["src"]).startswith("data:image/jpeg")] == []
    assert not [
        name for _, attributes in reader.tags for name in attributes if name.startswith("on") or name == "style"
    ]
    for tag in ("b", "i", "u", "em", "iframe", "object", "base"):
        assert reader.named(tag) == []
    text = "".join(reader.text)
    assert "<script>window.owned = 1</script><img src=x onerror='window.owned = 1'>\"'&amp;[U+202E]gnp.exe" in text
    assert "\x1b" not in text
    assert "\u202e" not in text


def test_nothing_is_asked_of_a_network(page: str) -> None:
    reader = Reader(page)
    for _, attributes in reader.tags:
        for name, value in attributes.items():
            if name in ("src", "href", "xlink:href", "action", "data", "srcset", "poster"):
                assert str(value).startswith(("data:", "#")), (name, value)
    style = re.search(r"<style>(.*?)</style>", page, re.DOTALL)
    assert style is not None
    assert "url(" not in style[1].replace("url(#", "")
    assert "@import" not in style[1]


def allowed(page: str, kind: str) -> list[str]:
    policy = Reader(page).named("meta")[1]
    assert policy["http-equiv"] == "Content-Security-Policy"
    return re.findall(rf"{kind}-src ([^;]*)", str(policy["content"]))


def hashed(page: str, tag: str) -> str:
    found = re.search(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
    assert found is not None
    return f"'sha256-{base64.b64encode(hashlib.sha256(found[1].encode()).digest()).decode()}'"


def test_only_this_style_and_this_script_are_allowed(page: str) -> None:
    assert allowed(page, "default") == ["'none'"]
    assert allowed(page, "style") == [hashed(page, "style")]
    assert allowed(page, "script") == [hashed(page, "script")]
    assert allowed(page, "img") == ["data:"]


def test_the_summary_comes_first_and_hashes_last(page: str) -> None:
    body = page.partition("<body>")[2]
    parts = ('class="lead"', "<h2", "<table", ">Differences in HITS@1<", ">Reliability<", ">Slices<", ">Costs</h2>")
    parts += (">Where they disagree<", ">Notes<", ">Method and hashes<", "a" * 64)
    assert [body.index(one) for one in parts] == sorted(body.index(one) for one in parts)
    assert "linker has the highest HITS@1" in body[: body.index("<h2")]


def test_every_example_stands_there_with_its_picture_or_why_not(page: str, report: ComparisonReport) -> None:
    reader = Reader(page)
    cases = reader.named("article")
    assert len(cases) == len(report.examples) > 10
    assert len(reader.named("img")) == sum(bool(one.picture) for one in report.mentions.values())
    assert all(one["alt"] for one in reader.named("img"))
    assert "".join(reader.text).count("there is no picture '<i>gone</i>.jpg'") == sum(
        bool(one.picture_note) for one in report.mentions.values()
    )


def test_a_sample_is_said_to_be_one(make: Callable[..., ComparisonReport]) -> None:
    page = " ".join(comparison_page(make(n=40, datasets=("d",), examples=6)).split())
    assert "6 of them are shown, drawn in turn from each pattern" in page
    whole = make(n=20, datasets=("d",), examples=1000)
    assert "All of them are shown." in comparison_page(whole)
    assert (
        "filters"
        not in comparison_page(make(n=20, datasets=("d",), examples=0)).split("<body>")[1].split("<script>")[0]
    )


def test_without_data_and_kb_there_are_ids(make: Callable[..., ComparisonReport]) -> None:
    report = make(n=20, datasets=("d",))
    text = "".join(Reader(comparison_page(replace(report, mentions={}, entities={}))).text)
    assert report.examples[0].mention_id in text
    assert "Q9" in text
    assert "Right & proper" not in text


def test_a_report_on_2000_mentions_with_pictures_is_below_20_mb(make: Callable[..., ComparisonReport]) -> None:
    """Two hundred examples, each with the largest picture that fits into what pictures may take."""
    report = make(n=2000, systems=("A", "B", "C", "D"), datasets=("d",), examples=200)
    noise = picture(0)
    n_fitting = 10_000_000 // len(noise)
    mentions = {
        key: ShownMention(before=HOSTILE * 5, surface="x", after="y", picture=noise if number < n_fitting else "")
        for number, key in enumerate(report.mentions)
    }
    page = comparison_page(replace(report, mentions=mentions))
    assert len(report.examples) == 200
    assert 8_000_000 < len(page.encode()) < MOST_BYTES


def test_the_same_report_is_the_same_page(page: str, make: Callable[..., ComparisonReport]) -> None:
    assert comparison_page(make()) == page


def test_the_page_of_runs_escapes_and_keeps_published_figures_apart() -> None:
    row = LeaderboardRow(
        run=HOSTILE, written="2026-11-21 16:51", dataset=HOSTILE, split="val", system="linker", withheld="nothing",
        asked="x", k=16, n=5, metrics={"hits@1": Estimate(value=0.5, low=0.1, high=0.9, n=5)},
        mentions_per_second=3.0, command=HOSTILE,
    )  # fmt: skip
    page = leaderboard_page(Leaderboard(rows=(row,), unreadable=(HOSTILE,)))
    reader = Reader(page)
    assert reader.named("script") == []
    assert reader.named("img") == []
    assert allowed(page, "script") == ["'none'"]
    ours, theirs = page.split('class="apart"')
    assert "0.500" in ours
    assert "GPT-4o-mini" not in ours
    assert "88.23" in theirs
    assert "not comparable" in theirs
