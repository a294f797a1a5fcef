from __future__ import annotations

import pytest
from pydicom import uid

from hilum.films import codecs, samples


@pytest.mark.parametrize("sample", samples.decoded(), ids=lambda sample: sample.name)
def test_every_transfer_syntax_decodes_here(sample: samples.Sample) -> None:
    assert sample.well, sample.why
    assert sample.milliseconds > 0 and sample.decoder


def test_samples_cover_all_syntaxes_that_are_read() -> None:
    assert [sample.name for sample in samples.decoded()] == [s.name for s in codecs.DECODERS]


def test_a_missing_decoder_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(codecs.DECODERS, uid.JPEG2000Lossless, "no-such-plugin")
    found = {sample.name: sample for sample in samples.decoded()}
    assert not found[uid.JPEG2000Lossless.name].well and found[uid.JPEG2000Lossless.name].why
    assert found[uid.RLELossless.name].well
