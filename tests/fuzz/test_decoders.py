"""A short round of `make fuzz` for the decoders in every run of the tests."""

import pytest

from tests.fuzz.decoders import DECODERS, Decoder, fuzz

SEED = 1
INPUTS = 300


@pytest.mark.parametrize("decoder", DECODERS, ids=lambda decoder: decoder.name)
def test_a_decoder_raises_what_it_says_and_nothing_else(decoder: Decoder) -> None:
    for text in decoder.seeds:
        assert decoder.name == "headers" or decoder.read(text) is None
    assert fuzz(decoder, SEED, INPUTS) == []


def test_the_fuzzer_notices_what_a_decoder_must_not_do() -> None:
    def careless(text: str) -> str | None:
        return None if int(text) < 10**9 else "too large"

    found = fuzz(Decoder("careless", ("1",), careless), SEED, INPUTS)
    assert any("raised ValueError" in fault for fault in found)
    assert any("too large" in fault for fault in found)
    assert all(
        "too large" in fault for fault in fuzz(Decoder("x", ("1",), careless, (ValueError,)), SEED, INPUTS)
    )
