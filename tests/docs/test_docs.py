"""The documentation: current, of the size it should have, and without broken links."""

import importlib.util
import re

import pytest
from tiny_data import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "docs/measured/README.md"]


def test_api_is_what_make_api_writes():
    spec = importlib.util.spec_from_file_location("make_api", ROOT / "docs/make_api.py")
    make_api = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make_api)
    assert make_api.PATH.read_text() == make_api.api_page(), "run python docs/make_api.py"
    assert "`agglomerate(distances, *, num_merges, num_steps, linkage='average'" in make_api.api_page()


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().split()) <= 1500


def anchors(page):
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        if link.startswith("http"):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists() and (not anchor or anchor in anchors(target)), f"{page.name} links to {link}"


def test_every_script_and_config_that_the_pages_name_exists():
    for page in PAGES:
        for path in re.findall(r"python ((?:experiments|data_prep|benchmarks|docs)/[a-z_]+\.py)", page.read_text()):
            assert (ROOT / path).is_file(), f"{page.name} names {path}"
