"""Headers rot, so each Lua header is held against its script and its caller."""

import re

import pytest

from app.keys import Keys
from app.paths import data_folder
from app.scripts import script_names, script_source

SALE_KEYS = ["meta", "journal", "due", "sale", "stock", "holds", "customers", "answers"]


def header(name: str) -> dict[str, str]:
    lines = (data_folder("lua") / f"{name}.lua").read_text().splitlines()
    comment = []
    for line in lines[1:]:
        if not line.startswith("-- "):
            break
        comment.append(line.removeprefix("-- "))
    sections = re.split(r"(?:^| )(Purpose|KEYS|ARGV|Returns|Invariant): ", " ".join(comment))
    return dict(zip(sections[1::2], sections[2::2], strict=True))


@pytest.mark.parametrize("name", script_names())
def test_each_script_opens_with_its_whole_contract(name: str) -> None:
    assert list(header(name)) == ["Purpose", "KEYS", "ARGV", "Returns", "Invariant"]


@pytest.mark.parametrize("name", script_names())
def test_each_word_that_a_script_answers_is_in_its_header(name: str) -> None:
    own = (data_folder("lua") / f"{name}.lua").read_text()
    words = set(re.findall(r"(?:return \{|answer\()'([a-z_]+)'", own))
    promised = set(re.findall(r"[a-z_]+", header(name)["Returns"]))
    assert words <= promised


@pytest.mark.parametrize(
    "name",
    [name for name in script_names() if "include sale" in (data_folder("lua") / f"{name}.lua").read_text()],
)
def test_the_keys_of_a_sale_come_in_the_order_that_the_header_names(name: str) -> None:
    named = re.findall(r"[a-z]+", header(name)["KEYS"].replace("then ", "").split(" of each")[0])
    assert named[:8] == SALE_KEYS
    keys = [key.partition(":")[2].partition("}:")[2].split(":")[0] for key in Keys("ns", 4).for_script("s")]
    assert keys == SALE_KEYS


@pytest.mark.parametrize("name", script_names())
def test_no_script_names_a_key_that_it_was_not_given(name: str) -> None:
    assert not re.search(r"redis\.p?call\('(?!INFO')[A-Z]+', '(?!USAGE')", script_source(name))
    assert "--- include" not in script_source(name)
