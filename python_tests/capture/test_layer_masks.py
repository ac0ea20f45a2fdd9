"""Each layer has the mask of the tokens on which it works, at equal numbers of tokens, too."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from python_tests.support.capture_networks import seeded
from python_tests.support.sentences import PADDING, VOCABULARY, padded, sentences
from repsim_fast import compare, record
from repsim_fast.capture import Capture

N, TEXT = 12, 9
TEXTS = padded(sentences(N, longest=TEXT), TEXT)
MASK = TEXTS["attention_mask"]


class Tower(nn.Module):
    """Self-attention, attention to what is given besides, and an MLP."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, width)
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width)
        self.cross_query, self.cross_key = nn.Linear(width, width), nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, other: Any = None) -> Tensor:
        x = self.embedding(input_ids)
        x = x + torch.softmax(self.query(x) @ self.key(x).mT, -1) @ x
        if other is not None:
            x = x + torch.softmax(self.cross_query(x) @ self.cross_key(other).mT, -1) @ other
        return self.norm(x)


class Pair(nn.Module):
    """An encoder and a decoder; ``config`` says so, as of public ones."""

    config = type("Config", (), {"is_encoder_decoder": True})

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = Tower(), Tower()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> Tensor:
        encoded = self.encoder(input_ids, attention_mask)
        if decoder_input_ids is None:
            assert labels is not None
            decoder_input_ids = labels.roll(1, 1)
        return self.decoder(decoder_input_ids, decoder_attention_mask, other=encoded)


class Pictured(nn.Module):
    """Text and an image, each with a tower, and what is made of both."""

    def __init__(self, patch: int) -> None:
        super().__init__()
        self.text_model, self.vision_model = Tower(), nn.Conv2d(3, 8, patch, patch)
        self.vision_norm = nn.LayerNorm(8)
        self.both = nn.Linear(16, 4)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, pixel_values: Tensor) -> Tensor:
        text = self.text_model(input_ids=input_ids, attention_mask=attention_mask)
        image = self.vision_model(pixel_values)
        image = self.vision_norm(image.flatten(2).mT)
        return self.both(torch.cat([text.mean(1), image.mean(1)], 1))


def mean(x: Tensor, mask: Tensor) -> Tensor:
    return (x * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)


def captured(model: nn.Module, inputs: dict[str, Tensor], **options: Any) -> dict[str, Tensor]:
    """Features in the second of two passes, which is not watched, held against the first."""
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("error")
        with Capture(model, **options) as capture:
            model(**inputs)
            first = capture.activations
            model(**inputs)
    assert all(torch.equal(first[name], x) for name, x in capture.activations.items())
    return capture.activations


def decoder_inputs(length: int) -> dict[str, Tensor]:
    batch = padded(sentences(N, shortest=1, longest=length, seed=1), length)
    return {f"decoder_{name}": x for name, x in batch.items()}


@pytest.mark.parametrize("length", [TEXT, TEXT - 4])
def test_encoder_and_decoder_have_their_own(length: int) -> None:
    model, inputs = seeded(Pair).eval(), {**TEXTS, **decoder_inputs(length)}
    raw = captured(model, inputs, maps=None)
    got = captured(model, inputs, maps="mean")
    assert set(got) == set(raw)
    for name, x in raw.items():
        # Keys of the decoder's attention to the encoder are the encoder's tokens.
        theirs = name.startswith("decoder") and name != "decoder.cross_key"
        mask = inputs["decoder_attention_mask"] if theirs else MASK
        torch.testing.assert_close(got[name], mean(x, mask), msg=name)


@pytest.mark.parametrize("length", [TEXT, TEXT - 4])
def test_a_decoder_without_a_mask_has_all_its_tokens_and_that_is_said(length: int) -> None:
    model, inputs = seeded(Pair).eval(), {**TEXTS, **decoder_inputs(length)}
    del inputs["decoder_attention_mask"]
    raw = captured(model, inputs, maps=None)
    with (
        pytest.warns(UserWarning, match="all tokens of 'decoder_input_ids' count: decoder_atte"),
        torch.no_grad(),
        Capture(model, maps="mean") as capture,
    ):
        model(**inputs)
    got = capture.activations
    torch.testing.assert_close(got["decoder.norm"], raw["decoder.norm"].mean(1))
    torch.testing.assert_close(got["decoder.cross_key"], mean(raw["decoder.cross_key"], MASK))
    torch.testing.assert_close(got["encoder.norm"], mean(raw["encoder.norm"], MASK))


def test_nothing_is_said_where_nothing_has_a_mask() -> None:
    inputs = {"input_ids": TEXTS["input_ids"], **decoder_inputs(TEXT)}
    del inputs["decoder_attention_mask"]

    class Unmasked(Pair):
        def forward(self, **inputs: Any) -> Tensor:  # type: ignore[override]
            return super().forward(attention_mask=None, **inputs)  # type: ignore[arg-type]

    got = captured(seeded(Unmasked).eval(), inputs, maps="mean")
    assert "decoder.norm" in got


@pytest.mark.parametrize("patch", [4, 3])  # as many patches as tokens, and others
def test_an_image_beside_a_text_has_all_its_tokens(patch: int) -> None:
    inputs = {**TEXTS, "pixel_values": torch.rand(N, 3, 12, 12)}
    torch.manual_seed(0)
    model = Pictured(patch).eval()
    raw, got = captured(model, inputs, maps=None), captured(model, inputs, maps="mean")
    assert set(got) == set(raw)
    torch.testing.assert_close(got["vision_model"], raw["vision_model"].mean((2, 3)))
    torch.testing.assert_close(got["vision_norm"], raw["vision_norm"].mean(1))
    torch.testing.assert_close(got["text_model.norm"], mean(raw["text_model.norm"], MASK))
    torch.testing.assert_close(got["both"], raw["both"])


def test_patches_have_a_mask_of_their_own() -> None:
    class Patches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.text_model, self.vision_model = Tower(), nn.Linear(5, 8)

        def forward(self, pixel_values: Tensor, pixel_attention_mask: Tensor, **text: Any) -> Any:
            return self.text_model(**text), self.vision_model(pixel_values)

    patches = torch.rand(N, 6, 5)
    real = (torch.arange(6) < torch.arange(N)[:, None] % 6 + 1).long()
    inputs = {**TEXTS, "pixel_values": patches, "pixel_attention_mask": real}
    model = seeded(Patches).eval()
    raw = captured(model, inputs, layers=["vision_model", "text_model.norm"], maps=None)
    got = captured(model, inputs, layers=["vision_model", "text_model.norm"], maps="mean")
    torch.testing.assert_close(got["vision_model"], mean(raw["vision_model"], real))
    torch.testing.assert_close(got["text_model.norm"], mean(raw["text_model.norm"], MASK))


class TestWhereNothingTells:
    def inputs(self, length: int = TEXT) -> dict[str, Tensor]:
        return {**TEXTS, "labels": decoder_inputs(length)["decoder_input_ids"]}

    def test_layers_are_left_out_with_a_reason(self) -> None:
        reason = "'decoder.*' [(]attention_mask and labels have 9 tokens both, so that nothing"
        with (
            torch.no_grad(),
            pytest.warns(UserWarning, match=reason),
            Capture(seeded(Pair).eval(), maps="mean") as capture,
        ):
            capture.model(**self.inputs())
        assert "encoder.norm" in capture.activations
        assert "decoder.norm" not in capture.activations

    def test_or_refused_if_they_were_asked_for(self) -> None:
        with (
            pytest.raises(ValueError, match=r"layer 'decoder.norm' has no maps='mean': .* say it"),
            Capture(seeded(Pair).eval(), "decoder.norm", maps="mean") as capture,
        ):
            capture.model(**self.inputs())

    def test_without_padding_nothing_has_to(self) -> None:
        ones = torch.ones_like(MASK)
        inputs = {**self.inputs(), "attention_mask": ones}
        got = captured(seeded(Pair).eval(), inputs, maps="mean")
        raw = captured(seeded(Pair).eval(), inputs, maps=None)
        torch.testing.assert_close(got["decoder.norm"], raw["decoder.norm"].mean(1))

    def test_of_layers_without_tokens(self) -> None:
        class Headed(Pair):
            def __init__(self) -> None:
                super().__init__()
                self.head = nn.Linear(8, 3)

            def forward(self, *args: Any, **inputs: Any) -> Tensor:
                return self.head(super().forward(*args, **inputs).mean(1))

        model, inputs = seeded(Headed).eval(), self.inputs()
        got = captured(model, inputs, layers=["encoder.norm", "head"], maps="mean")
        assert got["head"].shape == (N, 3)

    def test_the_same_tensor_for_both(self) -> None:
        inputs = {**TEXTS, "decoder_input_ids": TEXTS["input_ids"]}
        with (
            pytest.raises(ValueError, match="attention_mask and decoder_input_ids have 9 tokens"),
            Capture(seeded(Pair).eval(), "decoder.norm", maps="mean") as capture,
        ):
            capture.model(**inputs)

    def test_until_it_is_said(self) -> None:
        def of_labels(inputs: dict[str, Tensor]) -> Tensor:
            return inputs["labels"] != PADDING

        model, inputs = seeded(Pair).eval(), self.inputs()
        mask = {"decoder.cross_key": "attention_mask", "decoder.*": of_labels}
        raw = captured(model, inputs, maps=None)
        got = captured(model, inputs, maps="mean", mask=mask)
        assert set(got) == set(raw)
        for name, x in raw.items():
            theirs = name.startswith("decoder") and name != "decoder.cross_key"
            expected = mean(x, (of_labels(inputs) if theirs else MASK).long())
            torch.testing.assert_close(got[name], expected, msg=name)

    def test_decoders_alone_have_labels_of_the_same_number(self) -> None:
        class Causal(Tower):
            def forward(self, labels: Tensor, **text: Any) -> Tensor:  # type: ignore[override]
                return super().forward(**text)

        inputs = {**TEXTS, "labels": TEXTS["input_ids"]}
        got = captured(seeded(Causal).eval(), inputs, layers="norm", maps="mean")
        raw = captured(seeded(Causal).eval(), inputs, layers="norm", maps=None)
        torch.testing.assert_close(got["norm"], mean(raw["norm"], MASK))


class TestMapping:
    def test_none_says_that_no_token_is_padding(self) -> None:
        model = seeded(Tower).eval()
        raw = captured(model, TEXTS, maps=None)
        got = captured(model, TEXTS, maps="mean", mask={"query": None})
        torch.testing.assert_close(got["query"], raw["query"].mean(1))
        torch.testing.assert_close(got["key"], mean(raw["key"], MASK))

    def test_calls_of_a_layer(self) -> None:
        class Twice(Tower):
            def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:  # type: ignore[override]
                return self.norm(super().forward(input_ids, attention_mask))

        model = seeded(Twice).eval()
        raw = captured(model, TEXTS, layers="norm", maps=None)
        for pattern, unmasked in (("norm#2", {"norm#2"}), ("norm", {"norm", "norm#2"})):
            with warnings.catch_warnings():
                got = captured(model, TEXTS, layers="norm", maps="mean", mask={pattern: None})
            for name in ("norm", "norm#2"):
                all_real = torch.ones_like(MASK)
                expected = mean(raw[name], all_real if name in unmasked else MASK)
                torch.testing.assert_close(got[name], expected, msg=f"{pattern} {name}")

    def test_of_models_that_differ(self, tmp_path: Path) -> None:
        """A pattern may be of one of them; recordings keep the masks."""
        inputs = {**TEXTS, **decoder_inputs(TEXT)}

        class Alone(Tower):
            def forward(self, input_ids: Tensor, attention_mask: Tensor, **_: Any) -> Tensor:  # type: ignore[override]
                return super().forward(input_ids, attention_mask)

        models = {"pair": seeded(Pair).eval(), "alone": seeded(Alone).eval()}
        options: dict[str, Any] = {"maps": "mean", "mask": {"decoder.*": None}, "batch_size": 6}
        result = compare(models, inputs, **options)
        assert "decoder.norm" in result["pair", "alone"].rows
        assert result.settings["mask"] == "{'decoder.*': None}"
        kept = [
            record(models["pair"], inputs, tmp_path / "pair", **options),
            record(models["alone"], inputs, tmp_path / "alone", **{**options, "mask": None}),
        ]
        assert kept[0].settings["mask"] == "{'decoder.*': None}"
        within = compare(kept[:1], measure="cka").value
        np.testing.assert_allclose(within, result["pair", "pair"].value, atol=1e-6)
        with pytest.raises(ValueError, match="mask"):
            compare(kept)
        with pytest.raises(ValueError, match="mask"):
            record(models["pair"], inputs, tmp_path / "pair", **{**options, "mask": None})

    @pytest.mark.parametrize(
        ("mask", "error", "message"),
        [
            (3, TypeError, r"mask: expected the name of an input, a callable .*, got 3"),
            ({"norm": 3}, TypeError, r"mask: expected the name of an input, .*, got 3"),
            ({1: None}, TypeError, "mask: expected names or patterns of layers, got 1"),
            ({"nrm": None}, ValueError, "mask: 'nrm' matches no layer"),
        ],
    )
    def test_what_is_none(self, mask: Any, error: type[Exception], message: str) -> None:
        with pytest.raises(error, match=message):
            Capture(Tower(), mask=mask)
        with pytest.raises(error, match=message):
            compare([Tower()], TEXTS, maps="mean", mask=mask)


def public(name: str) -> nn.Module:
    """A small model of transformers with random weights."""
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    if name == "T5Model":
        sizes = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2}
        config = transformers.T5Config(vocab_size=VOCABULARY, **sizes)
    elif name == "BartModel":
        of_each = {"layers": 2, "attention_heads": 2, "ffn_dim": 32}
        sizes = {f"{side}_{k}": n for side in ("encoder", "decoder") for k, n in of_each.items()}
        config = transformers.BartConfig(
            vocab_size=VOCABULARY, d_model=16, max_position_embeddings=TEXT, **sizes
        )
    else:  # as many patches as tokens
        both = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2}
        config = transformers.SiglipConfig(
            text_config={**both, "vocab_size": VOCABULARY, "max_position_embeddings": TEXT},
            vision_config={**both, "image_size": 12, "patch_size": 4},
        )
    torch.manual_seed(0)
    return getattr(transformers, name)(config).eval()


@pytest.mark.parametrize("name", ["T5Model", "BartModel", "SiglipModel"])
def test_public_models_are_read_whole(name: str) -> None:
    model = public(name)
    if name == "SiglipModel":
        inputs = {**TEXTS, "pixel_values": torch.rand(N, 3, 12, 12)}
    else:
        inputs = {**TEXTS, **decoder_inputs(TEXT)}
    raw, got = captured(model, inputs, maps=None), captured(model, inputs, maps="mean")
    assert set(got) == set(raw)
    ends = {"EncDecAttention": "kv", "encoder_attn": ("k_proj", "v_proj")}
    crossing = tuple(f"{attention}.{end}" for attention, found in ends.items() for end in found)
    for layer, x in raw.items():
        if x.ndim != 3:
            continue
        if layer.startswith("vision_model"):
            mask = torch.ones_like(MASK)
        elif layer.startswith("decoder") and not layer.endswith(crossing):
            mask = inputs["decoder_attention_mask"]
        else:
            mask = MASK
        torch.testing.assert_close(got[layer], mean(x, mask), msg=layer)
