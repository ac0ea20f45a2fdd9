"""Padding tells nothing: values are those of the real tokens alone, at any padded length."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from python_tests.support.capture_networks import seeded
from python_tests.support.replayed_graph import ReplayedGraph
from python_tests.support.sentences import PADDING, Encoder, OfIds, padded, sentences
from python_tests.support.written_out import minibatch_cka
from repsim_fast.capture import Capture
from repsim_fast.comparison import engine
from repsim_fast.comparison.compare import compare
from repsim_fast.comparison.result import SimilarityResult

TEXTS = sentences(48)
BATCHES = [TEXTS[:16], TEXTS[16:32], TEXTS[32:]]
LAYERS = ["layers.0.linear1", "layers.0", "layers.1", "norm"]
FORMS: dict[str, Callable[[Tensor], Tensor]] = {  # of a sentence (T, D)
    "tokens": lambda x: x,
    "mean": lambda x: x.mean(0, keepdim=True),
    "cls": lambda x: x[:1],
    "last": lambda x: x[-1:],
}


def data(length: int, side: str = "right") -> list[dict[str, Tensor]]:
    return [padded(texts, length, side) for texts in BATCHES]


def models() -> dict[str, Encoder]:
    return {name: seeded(Encoder, seed).eval() for seed, name in enumerate(("a", "b"))}


def silent(*args: object, **options: object) -> SimilarityResult:
    """A comparison in which a warning is a failure."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return compare(*args, **options)  # type: ignore[call-overload, no-any-return]


def of_single_sentences(form: str) -> np.ndarray:
    """CKA written out for features of each sentence on its own, which needs no padding."""
    both = [model.double() for model in models().values()]

    def features(texts: list[Tensor]) -> list[Tensor]:
        found: dict[tuple[int, str], list[Tensor]] = {}
        for number, model in enumerate(both):
            for text in texts:
                with torch.no_grad(), Capture(model, LAYERS, maps=None) as capture:
                    model(text[None], torch.ones(1, len(text)))
                for name, x in capture.activations.items():
                    found.setdefault((number, name), []).append(FORMS[form](x[0]))
        return [torch.cat(parts) for parts in found.values()]

    return minibatch_cka([features(texts) for texts in BATCHES]).numpy()


class TestAtAnyPaddedLength:
    @pytest.mark.parametrize("form", FORMS)
    def test_values_are_those_of_real_tokens(self, form: str) -> None:
        expected = of_single_sentences(form)
        for length in (11, 24, 48):
            for side in ("right", "left"):
                got = silent(models(), data(length, side), layers=LAYERS, maps=form)
                np.testing.assert_allclose(got.value, expected, atol=1e-6, err_msg=str(length))

    def test_ignoring_the_mask_gave_other_values_at_each_length(self) -> None:
        """What the error spares its readers of, seen through a callable, which takes anything."""
        values = [
            compare(models(), data(length), layers="norm", maps=lambda x: x.flatten(0, 1))
            .between("a", "b")
            .value.item()
            for length in (12, 24, 48)
        ]
        alone = silent(models(), data(12), layers="norm", maps="tokens")
        assert np.ptp(values) > 0.05
        assert np.abs(np.array(values) - alone.between("a", "b").value).min() > 0.01

    def test_batches_of_different_lengths(self) -> None:
        mixed = [padded(t, n) for t, n in zip(BATCHES, (11, 20, 33), strict=True)]
        for form in FORMS:
            np.testing.assert_allclose(
                silent(models(), mixed, layers=LAYERS, maps=form).value,
                silent(models(), data(24), layers=LAYERS, maps=form).value,
                atol=1e-6,
            )

    @pytest.mark.parametrize("measure", ["procrustes_distance", "cca", "cka_rbf"])
    def test_other_measures(self, measure: str) -> None:
        got = [
            silent(models(), data(n), layers=["norm"], maps="tokens", measure=measure).value
            for n in (11, 40)
        ]
        np.testing.assert_allclose(*got, atol=2e-5)

    def test_samples_are_counted(self) -> None:
        real = sum(map(len, TEXTS))
        assert silent(models(), data(24), layers=LAYERS, maps="tokens").n_samples == real
        assert silent(models(), data(24), layers=LAYERS, maps="mean").n_samples == 48


class TestPadding:
    @pytest.mark.parametrize("form", FORMS)
    def test_features_of_padding_do_not_matter_at_all(self, form: str) -> None:
        class Poison(nn.Module):
            """A norm that leaves NaN where there is padding."""

            def __init__(self, encoder: Encoder) -> None:
                super().__init__()
                self.encoder = encoder
                self.poison_norm = PoisonNorm()

            def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
                with torch.no_grad(), Capture(self.encoder, "norm", maps=None) as capture:
                    out = self.encoder(input_ids, attention_mask)
                self.poison_norm(capture.activations["norm"], attention_mask)
                return out

        class PoisonNorm(nn.Module):
            def forward(self, x: Tensor, mask: Tensor) -> Tensor:
                return x.masked_fill(mask[..., None] == 0, torch.nan)

        model = seeded(Encoder).eval()
        clean = silent([model], data(24), layers=["norm", "layers.0"], maps=form)
        poisoned = silent(
            [Poison(model)], data(24), layers=["poison_norm", "encoder.layers.0"], maps=form
        )
        np.testing.assert_allclose(poisoned.value, clean.value, atol=1e-12)

    @pytest.mark.parametrize("maps", ["flatten", "pool", "positions"])
    def test_a_form_that_counts_it_is_refused(self, maps: str) -> None:
        message = (
            rf"maps='{maps}' would count padding: attention_mask has zeros for \d+ of 384 tokens, "
            r"and layer 'layers.0.linear1' returns \(16, 24, 32\). Choose maps='tokens' .*'mean' "
            r".*'cls' or 'last'"
        )
        with pytest.raises(ValueError, match=message):
            compare(models(), data(24), layers=LAYERS, maps=maps)

    def test_tokens_as_rows_are_refused_too(self) -> None:
        class Rows(OfIds):
            def __init__(self, encoder: Encoder) -> None:
                super().__init__(encoder)
                self.linear = nn.Linear(16, 4)

            def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
                x = self.encoder.embedding(input_ids)
                return self.linear(x.flatten(0, 1)).view(*x.shape[:2], -1).mean(1)

        model = Rows(Encoder())
        with pytest.raises(ValueError, match=r"'linear' returns \(384, 4\)"):
            compare([model], data(24), layers="linear")
        assert silent([model], data(24), layers="linear", maps="mean").n_samples == 48

    def test_layers_without_tokens_may_have_any_form(self) -> None:
        for maps in ("flatten", "pool", "positions", "mean", "cls", "last"):
            got = silent(models(), data(24), layers="head", maps=maps)
            assert got.n_samples == 48

    def test_a_mask_without_zeros_changes_nothing(self) -> None:
        texts = sentences(48, shortest=9, longest=9)
        batches = [padded(texts[i : i + 16], 9) for i in (0, 16, 32)]
        flat = silent(models(), batches, layers=LAYERS)
        assert flat.n_samples == 48
        by_token = silent(models(), batches, layers=LAYERS, maps="tokens")
        by_position = silent(models(), batches, layers=LAYERS, maps="positions")
        np.testing.assert_array_equal(by_token.value, by_position.value)

    def test_a_sentence_without_tokens(self) -> None:
        batches = data(24)
        batches[1]["attention_mask"][3] = 0
        for form in ("mean", "cls", "last"):
            with pytest.raises(ValueError, match="sample 3 of a batch has no real token in atten"):
                compare(models(), batches, layers="norm", maps=form)


class TestMask:
    def plain(self, form: str) -> np.ndarray:
        return silent(models(), data(24), layers=LAYERS, maps=form).value

    def test_under_another_name(self) -> None:
        class Renamed(nn.Module):
            def __init__(self, encoder: Encoder) -> None:
                super().__init__()
                self.encoder = encoder

            def forward(self, ids: Tensor, real: Tensor) -> Tensor:
                return self.encoder(ids, real)

        batches = [
            {"ids": batch["input_ids"], "real": batch["attention_mask"].bool()}
            for batch in data(24)
        ]
        wrapped = {name: Renamed(model) for name, model in models().items()}
        layers = [f"encoder.{name}" for name in LAYERS]
        got = silent(wrapped, batches, layers=layers, maps="mean", mask="real")
        np.testing.assert_array_equal(got.value, self.plain("mean"))
        assert got.settings["mask"] == "real"
        with pytest.raises(ValueError, match=r"inputs have no 'reel'; they are \['ids', 'real'\]"):
            compare(wrapped, batches, layers=layers, maps="mean", mask="reel")

    def test_of_other_values_is_refused(self) -> None:
        batches = data(24)
        for batch in batches:
            batch["attention_mask"] = -1e9 * (1 - batch["attention_mask"].float())
        with pytest.raises(ValueError, match=r"1 for real tokens and 0 for padding, got values in"):
            compare(models(), batches, layers=LAYERS, maps="mean")

    def test_what_may_be_one_is_named(self) -> None:
        class Renamed(nn.Module):
            def __init__(self, encoder: Encoder) -> None:
                super().__init__()
                self.encoder = encoder

            def forward(self, ids: Tensor, more: dict[str, Tensor]) -> Tensor:
                return self.encoder(ids, ~more["padding_mask"])

        batches = [
            {"ids": batch["input_ids"], "more": {"padding_mask": batch["attention_mask"] == 0}}
            for batch in data(24)
        ]
        wrapped = {name: Renamed(model) for name, model in models().items()}
        layers = [f"encoder.{name}" for name in LAYERS]
        with pytest.warns(UserWarning, match="'more.padding_mask' among the inputs is not taken"):
            result = compare(wrapped, batches, layers=layers, maps="mean")
        assert any("all tokens count" in note for note in result.notes)

        def mask(inputs: dict[str, Any]) -> Tensor:
            return ~inputs["more"]["padding_mask"]

        got = silent(wrapped, batches, layers=layers, maps="mean", mask=mask)
        np.testing.assert_array_equal(got.value, self.plain("mean"))

    def test_of_a_tensor_by_a_callable(self) -> None:
        batches = [batch["input_ids"] for batch in data(24)]
        wrapped = {name: OfIds(model) for name, model in models().items()}
        layers = [f"encoder.{name}" for name in LAYERS]

        def mask(ids: Tensor) -> Tensor:
            return ids != PADDING

        got = silent(wrapped, batches, layers=layers, maps="tokens", mask=mask)
        np.testing.assert_array_equal(got.value, self.plain("tokens"))
        with pytest.raises(ValueError, match="would count padding: mask= has zeros"):
            compare(wrapped, batches, layers=layers, mask=mask)

    def test_a_callable_may_say_that_there_is_none(self) -> None:
        got = silent(models(), data(24), layers="norm", maps="pool", mask=lambda inputs: None)
        assert got.n_samples == 48

    def test_given_by_position(self) -> None:
        model, batch = models()["a"], data(24)[0]
        with torch.no_grad(), Capture(model, "norm", maps="last") as capture:
            model(batch["input_ids"], batch["attention_mask"])
        with torch.no_grad(), Capture(model, "norm", maps="last") as named:
            model(**batch)
        assert torch.equal(capture.activations["norm"], named.activations["norm"])

    def test_without_one_all_tokens_are_real(self) -> None:
        model = OfIds(models()["a"])
        ids = data(24)[0]["input_ids"]
        x = model.encoder.norm
        for form, expected in (
            ("tokens", lambda x: x.flatten(0, 1)),
            ("mean", lambda x: x.mean(1)),
            ("cls", lambda x: x[:, 0]),
            ("last", lambda x: x[:, -1]),
        ):
            with torch.no_grad(), Capture(model, "encoder.norm", maps=form) as capture:
                seen: list[Tensor] = []
                handle = x.register_forward_hook(lambda m, a, out, seen=seen: seen.append(out))
                model(ids)
                handle.remove()
            assert torch.equal(capture.activations["encoder.norm"], expected(seen[0]))

    @pytest.mark.parametrize(
        ("mask", "error", "message"),
        [
            (
                lambda x: x["attention_mask"][:, None],
                ValueError,
                r"shape \(N, T\), got \(16, 1, 24",
            ),
            (lambda x: [1], TypeError, r"mask: expected a tensor \(N, T\), got list"),
        ],
    )
    def test_no_mask(self, mask: Any, error: type[Exception], message: str) -> None:
        with pytest.raises(error, match=message):
            compare(models(), data(24), layers="norm", maps="mean", mask=mask)

    def test_encoder_and_decoder_of_equal_lengths(self) -> None:
        class Both(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.encoder, self.decoder = Encoder(), Encoder()

            def forward(
                self, input_ids: Tensor, attention_mask: Tensor, decoder_input_ids: Tensor
            ) -> Tensor:
                out = self.encoder(input_ids, attention_mask)
                return out + self.decoder(decoder_input_ids, torch.ones_like(decoder_input_ids))

        def batches(length: int) -> list[dict[str, Tensor]]:
            return [
                {**batch, "decoder_input_ids": batch["input_ids"][:, :length].clamp(min=1)}
                for batch in data(24)
            ]

        model = seeded(Both).eval()
        both = ["encoder.norm", "decoder.norm"]
        for length in (7, 24):
            with pytest.warns(UserWarning, match="all tokens of 'decoder_input_ids' count"):
                got = compare([model], batches(length), layers=both, maps="mean")
            features = []
            for batch in batches(length):
                with torch.no_grad(), Capture(model, both, maps=None) as capture:
                    model(**batch)
                encoded, decoded = (capture.activations[name].double() for name in both)
                real = batch["attention_mask"][..., None]
                features.append([(encoded * real).sum(1) / real.sum(1), decoded.mean(1)])
            np.testing.assert_allclose(got.value, minibatch_cka(features), atol=1e-6)

    def test_cuda_graphs_have_none(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(engine, "device_of", lambda model: torch.device("cuda"))
        monkeypatch.setattr("repsim_fast.comparison.replay.GraphedLoop", ReplayedGraph)
        with pytest.raises(ValueError, match="cuda_graph: expected inputs without a mask of tok"):
            compare(models(), data(24), layers="norm", maps="mean", cuda_graph=True)


class TestLayersWithoutTokens:
    def test_are_left_out_by_default(self) -> None:
        with pytest.warns(UserWarning, match=r"model 'a': 1 layers left out.*'head' \(it has no t"):
            result = compare({"a": models()["a"]}, data(24), maps="tokens")
        assert "head" not in result.layers[0]
        assert "norm" in result.layers[0]

    def test_are_refused_if_they_were_asked_for(self) -> None:
        with pytest.raises(ValueError, match="layer 'head' of model 'a': it has no tokens"):
            compare({"a": models()["a"]}, data(24), layers=["norm", "head"], maps="tokens")

    def test_of_a_capture(self) -> None:
        model, batch = models()["a"], data(24)[0]
        capture = Capture(model, maps="tokens")

        def run() -> None:
            with torch.no_grad(), capture:
                model(**batch)

        with pytest.warns(UserWarning, match=r"1 layers left out: 'head' \(it has no tokens\)"):
            run()
        assert "head" not in capture.activations
        assert capture.activations["norm"].shape == (int(batch["attention_mask"].sum()), 16)
        asked = Capture(model, "head", maps="tokens")
        with pytest.raises(ValueError, match="layer 'head' has no maps='tokens'"), asked:
            model(**batch)


class TestFewTokens:
    def test_a_batch_of_too_few_is_dropped(self) -> None:
        few = padded([torch.tensor([3]), torch.tensor([4, 5])], 24)
        with pytest.warns(UserWarning, match="dropped 1 of 4 batches, of 3 samples.*at least 4"):
            got = compare(models(), [*data(24), few], layers=LAYERS, maps="tokens")
        expected = silent(models(), data(24), layers=LAYERS, maps="tokens")
        np.testing.assert_array_equal(got.value, expected.value)

    def test_nothing_else(self) -> None:
        few = padded([torch.tensor([3]), torch.tensor([4, 5])], 24)
        with pytest.raises(ValueError, match="at least 4 samples, got batches of 3"):
            compare(models(), [few], layers=LAYERS, maps="tokens")

    def test_four_are_enough(self) -> None:
        four = padded([torch.tensor([3]), torch.tensor([4, 5, 6])], 24)
        assert silent(models(), [four], layers="norm", maps="tokens").n_samples == 4


class TestLanguageModels:
    """Of a library, small and random."""

    @pytest.fixture
    def hub(self) -> Any:
        return pytest.importorskip("transformers", reason="transformers is not installed")

    def pair(self, hub: Any, name: str) -> dict[str, nn.Module]:
        sizes = {"vocab_size": 30, "pad_token_id": PADDING}
        of_bert = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
        wide = {**of_bert, "intermediate_size": 32}
        configs = {
            "bert": lambda: hub.BertConfig(**wide, **sizes),
            "gpt2": lambda: hub.GPT2Config(
                n_embd=16, n_layer=2, n_head=2, bos_token_id=1, eos_token_id=1, **sizes
            ),
            "llama": lambda: hub.LlamaConfig(num_key_value_heads=2, **wide, **sizes),
            "t5": lambda: hub.T5Config(
                d_model=16, num_layers=2, num_heads=2, d_ff=32, d_kv=8, **sizes
            ),
        }
        config = configs[name]()
        build = hub.T5EncoderModel if name == "t5" else hub.AutoModel.from_config
        return {
            label: seeded(lambda: build(config), seed).eval()
            for seed, label in ((0, "a"), (1, "b"))
        }

    @pytest.mark.parametrize("form", FORMS)
    @pytest.mark.parametrize(
        ("name", "sides"),
        [
            ("bert", ["right"]),  # its positions are counted from the left
            ("gpt2", ["right"]),
            ("llama", ["right", "left"]),
            ("t5", ["right", "left"]),
        ],
    )
    def test_values_do_not_depend_on_padding(
        self, hub: Any, name: str, sides: list[str], form: str
    ) -> None:
        pair = self.pair(hub, name)
        options: dict[str, Any] = {"maps": form}
        if name == "bert":
            options["layers"] = "encoder.*"
        first, *others = (
            silent(pair, data(length, side), **options) for side in sides for length in (11, 24, 48)
        )
        assert len(first.layers[0]) > 10
        for other in others:
            np.testing.assert_allclose(other.value, first.value, atol=1e-6)
