"""Roles of transformers' layers: against what the libraries say themselves, and by hand."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from repsim_fast.capture import Capture, list_layers

DEPTH = 3
WIDTH = 16
ALL = ["hidden_states.*", "attention.*", "mlp.*"]


def roles(model: nn.Module, inputs: Any, layers: Any = ALL) -> dict[str, Tensor]:
    """What the model's roles are."""
    torch.manual_seed(0)
    with torch.no_grad(), Capture(model.eval(), layers, maps=None) as capture:
        model(**inputs) if isinstance(inputs, dict) else model(inputs)
    return capture.activations


def check_names(found: dict[str, Tensor], depth: int = DEPTH) -> None:
    expected = {
        f"{role}.{i + 1}" for role in ("hidden_states", "attention", "mlp") for i in range(depth)
    }
    assert found.keys() == expected | {"hidden_states.0"}


def check_added(found: dict[str, Tensor], depth: int = DEPTH) -> None:
    """Of a block with norms before attention and MLP: the stream is the sum of what is added."""
    for i in range(1, depth + 1):
        before, after = found[f"hidden_states.{i - 1}"], found[f"hidden_states.{i}"]
        total = before + found[f"attention.{i}"] + found[f"mlp.{i}"]
        torch.testing.assert_close(after, total, rtol=1e-5, atol=1e-5)


def check_normed(
    found: dict[str, Tensor], norms: Callable[[int], tuple[nn.Module, nn.Module]]
) -> None:
    """Of a block with norms after attention and MLP."""
    for i in range(1, DEPTH + 1):
        first, second = norms(i - 1)
        with torch.no_grad():
            middle = first(found[f"hidden_states.{i - 1}"] + found[f"attention.{i}"])
            after = second(middle + found[f"mlp.{i}"])
        torch.testing.assert_close(found[f"hidden_states.{i}"], after, rtol=1e-5, atol=1e-5)


class Family(NamedTuple):
    """How a family of Transformers is built, and where its norms are."""

    make: Callable[[Any], nn.Module]
    inputs: dict[str, Tensor]
    last_norm: str | None = None  # which only the library's own last hidden state is after
    norms: tuple[str, str] | None = None  # of a block, after the residual sums


TOKENS = {
    "input_ids": torch.randint(1, 30, (4, 7), generator=torch.Generator().manual_seed(0)),
    "attention_mask": (torch.arange(7) < torch.tensor([7, 5, 3, 6])[:, None]).long(),
}
IMAGES = {"pixel_values": torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))}
SOUND = {"input_features": torch.rand(2, 8, 20, generator=torch.Generator().manual_seed(0))}

OF_ALL = {"hidden_size": WIDTH, "num_hidden_layers": DEPTH, "num_attention_heads": 2}
USUAL = {**OF_ALL, "intermediate_size": 32}
WORDS = {"vocab_size": 30, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1}
PATCHES = {**USUAL, "image_size": 16, "patch_size": 8}
GROUPED = {**USUAL, **WORDS, "num_key_value_heads": 1}
T5 = {"d_model": WIDTH, "num_layers": DEPTH, "num_heads": 2, "d_ff": 32, "d_kv": 8, **WORDS}
WHISPER = {
    "d_model": WIDTH, "encoder_layers": DEPTH, "encoder_attention_heads": 2,
    "encoder_ffn_dim": 32, "num_mel_bins": 8, "max_source_positions": 10,
    "decoder_layers": 2, "decoder_attention_heads": 2, "decoder_ffn_dim": 32, **WORDS,
}  # fmt: skip
AFTER = ("attention.output.LayerNorm", "output.LayerNorm")

FAMILIES = {
    "bert": Family(lambda t: t.BertModel(t.BertConfig(**USUAL, **WORDS)), TOKENS, None, AFTER),
    "bert with a head": Family(
        lambda t: t.BertForMaskedLM(t.BertConfig(**USUAL, **WORDS)), TOKENS, None, AFTER
    ),
    "roberta": Family(
        lambda t: t.RobertaModel(t.RobertaConfig(**USUAL, **WORDS)), TOKENS, None, AFTER
    ),
    "distilbert": Family(
        lambda t: t.DistilBertModel(
            t.DistilBertConfig(dim=WIDTH, n_layers=DEPTH, n_heads=2, hidden_dim=32, **WORDS)
        ),
        TOKENS,
        None,
        ("sa_layer_norm", "output_layer_norm"),
    ),
    "gpt2": Family(
        lambda t: t.GPT2Model(t.GPT2Config(n_embd=WIDTH, n_layer=DEPTH, n_head=2, **WORDS)),
        TOKENS,
        "ln_f",
    ),
    "gpt2 with a head": Family(
        lambda t: t.GPT2LMHeadModel(t.GPT2Config(n_embd=WIDTH, n_layer=DEPTH, n_head=2, **WORDS)),
        TOKENS,
        "transformer.ln_f",
    ),
    "llama": Family(lambda t: t.LlamaModel(t.LlamaConfig(**GROUPED)), TOKENS, "norm"),
    "mistral": Family(lambda t: t.MistralModel(t.MistralConfig(**GROUPED)), TOKENS, "norm"),
    "qwen2": Family(lambda t: t.Qwen2Model(t.Qwen2Config(**GROUPED)), TOKENS, "norm"),
    "mixtral": Family(
        lambda t: t.MixtralModel(
            t.MixtralConfig(**GROUPED, num_local_experts=3, num_experts_per_tok=2)
        ),
        TOKENS,
        "norm",
    ),
    "t5": Family(lambda t: t.T5EncoderModel(t.T5Config(**T5)), TOKENS, "encoder.final_layer_norm"),
    "t5 gated": Family(
        lambda t: t.T5EncoderModel(t.T5Config(**T5, feed_forward_proj="gated-gelu")),
        TOKENS,
        "encoder.final_layer_norm",
    ),
    "vit": Family(lambda t: t.ViTModel(t.ViTConfig(**PATCHES)), IMAGES),
    "vit with a head": Family(
        lambda t: t.ViTForImageClassification(t.ViTConfig(**PATCHES)), IMAGES
    ),
    "clip images": Family(lambda t: t.CLIPVisionModel(t.CLIPVisionConfig(**PATCHES)), IMAGES),
    "clip texts": Family(lambda t: t.CLIPTextModel(t.CLIPTextConfig(**USUAL, **WORDS)), TOKENS),
    "whisper": Family(
        lambda t: t.WhisperModel(t.WhisperConfig(**WHISPER)).encoder, SOUND, "layer_norm"
    ),
}


class TestTransformers:
    """Families of the library, small and random."""

    @pytest.fixture
    def hub(self) -> Any:
        return pytest.importorskip("transformers", reason="transformers is not installed")

    @pytest.fixture(params=FAMILIES)
    def family(self, request: pytest.FixtureRequest) -> Family:
        return FAMILIES[request.param]

    def model(self, hub: Any, family: Family) -> nn.Module:
        torch.manual_seed(1)
        model = family.make(hub).eval()
        for parameter in model.parameters():  # norms and biases, too, which are 1 and 0 at first
            nn.init.normal_(parameter, std=0.3)
        return model

    def test_hidden_states_are_the_librarys(self, hub: Any, family: Family) -> None:
        model = self.model(hub, family)
        found = roles(model, family.inputs)
        check_names(found)
        with torch.no_grad():
            theirs = list(model(**family.inputs, output_hidden_states=True).hidden_states)
        assert len(theirs) == DEPTH + 1
        last = found[f"hidden_states.{DEPTH}"]
        if family.last_norm is not None:
            assert not torch.allclose(theirs[-1], last, rtol=0.1)
            with torch.no_grad():
                last = model.get_submodule(family.last_norm)(last)
        ours = [found[f"hidden_states.{i}"] for i in range(DEPTH)] + [last]
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)

    def test_attention_and_mlp_are_what_is_added(self, hub: Any, family: Family) -> None:
        model = self.model(hub, family)
        found = roles(model, family.inputs)
        if family.norms is None:
            check_added(found)
            return
        first, second = family.norms
        layers = {role: layer.name for layer in list_layers(model) if (role := layer.role)}
        blocks = [model.get_submodule(layers[f"hidden_states.{i + 1}"]) for i in range(DEPTH)]
        check_normed(
            found, lambda i: (blocks[i].get_submodule(first), blocks[i].get_submodule(second))
        )

    def test_the_attention_is_not_the_cross_attention(self, hub: Any) -> None:
        model = hub.T5Model(hub.T5Config(**T5)).eval()
        inputs = {"input_ids": TOKENS["input_ids"], "decoder_input_ids": TOKENS["input_ids"][:, :5]}
        found = roles(model, inputs, ["encoder.hidden_states.*", "decoder.attention.*"])
        assert [name for name in found if name.startswith("decoder")] == [
            f"decoder.attention.{i}" for i in (1, 2, 3)
        ]
        stack = model.decoder.block[0].layer
        with torch.no_grad():
            x = stack[0].layer_norm(model.shared(inputs["decoder_input_ids"]))
            causal = torch.full((5, 5), float("-inf")).triu(1)
            q, k, v = (
                getattr(stack[0].SelfAttention, name)(x).unflatten(2, (2, 8)).transpose(1, 2)
                for name in "qkv"
            )
            bias = stack[0].SelfAttention.compute_bias(5, 5)
            heads = (q @ k.transpose(2, 3) + bias + causal).softmax(3) @ v
            by_hand = stack[0].SelfAttention.o(heads.transpose(1, 2).flatten(2))
        torch.testing.assert_close(found["decoder.attention.1"], by_hand, rtol=1e-4, atol=1e-5)

    def test_two_towers(self, hub: Any) -> None:
        config = hub.CLIPConfig(
            text_config={**USUAL, **WORDS}, vision_config=PATCHES, projection_dim=8
        )
        model = hub.CLIPModel(config)
        found = roles(model, {**TOKENS, **IMAGES}, "*.mlp.1")
        assert {name: x.shape for name, x in found.items()} == {
            "text_model.mlp.1": (4, 7, WIDTH),
            "vision_model.mlp.1": (2, 5, WIDTH),
        }
        with pytest.raises(ValueError, match=r"roles are text_model.hidden_states.0 to .3"):
            Capture(model, "hidden_states.*")

    def test_stages_have_none(self, hub: Any) -> None:
        config = hub.SwinConfig(
            image_size=32, patch_size=4, embed_dim=8, depths=[1, 1], num_heads=[1, 2], window_size=4
        )
        with pytest.raises(ValueError, match="It has no roles of a transformer: blocks come in 2"):
            Capture(hub.SwinModel(config), "hidden_states.*")


class TestTorch:
    @pytest.mark.parametrize("batch_first", [True, False])
    @pytest.mark.parametrize("norm_first", [True, False])
    def test_encoder(self, batch_first: bool, norm_first: bool) -> None:
        torch.manual_seed(0)
        layer = nn.TransformerEncoderLayer(
            WIDTH, 2, 32, batch_first=batch_first, norm_first=norm_first
        )
        encoder = nn.TransformerEncoder(
            layer, DEPTH, norm=nn.LayerNorm(WIDTH), enable_nested_tensor=False
        )
        x = torch.randn(4, 7, WIDTH)
        given = x if batch_first else x.transpose(0, 1)
        found = roles(encoder, given)
        check_names(found)
        assert torch.equal(found["hidden_states.0"], x)
        if norm_first:
            check_added(found)
        else:
            check_normed(found, lambda i: (encoder.layers[i].norm1, encoder.layers[i].norm2))
        with torch.no_grad():
            last = encoder.norm(found[f"hidden_states.{DEPTH}"])
            whole = encoder(given)
        whole = whole if batch_first else whole.transpose(0, 1)
        torch.testing.assert_close(last, whole, rtol=1e-5, atol=1e-5)

    def test_encoder_and_decoder(self) -> None:
        model = nn.Transformer(WIDTH, 2, 2, 2, 32, batch_first=True).eval()
        with torch.no_grad(), Capture(model, "decoder.*", maps=None) as by_module:
            model(torch.randn(4, 7, WIDTH), torch.randn(4, 5, WIDTH))
        assert "decoder.layers.0.self_attn" in by_module.activations  # names of modules go first
        with torch.no_grad(), Capture(model, "decoder.attention.?", maps=None) as capture:
            x = torch.randn(4, 7, WIDTH), torch.randn(4, 5, WIDTH)
            model(*x)
            own = model.decoder.layers[0].self_attn(x[1], x[1], x[1])[0]
        torch.testing.assert_close(capture.activations["decoder.attention.1"], own)

    def test_blocks_that_are_the_model(self) -> None:
        model = nn.Sequential(
            *(nn.TransformerEncoderLayer(WIDTH, 2, 32, batch_first=True) for _ in range(2))
        )
        check_names(roles(model, torch.randn(2, 5, WIDTH)), 2)

    def test_blocks_compiled_in_place(self) -> None:
        model = nn.TransformerEncoder(
            nn.TransformerEncoderLayer(WIDTH, 2, 32, batch_first=True), 2,
            enable_nested_tensor=False,
        )  # fmt: skip
        x = torch.randn(2, 5, WIDTH)
        plain = roles(model, x)
        for i, block in enumerate(model.layers):
            model.layers[i] = torch.compile(block, backend="eager")
        compiled = roles(model, x)
        assert compiled.keys() == plain.keys()
        assert all(torch.equal(plain[name], compiled[name]) for name in plain)


class TestImageModels:
    def test_torchvision(self) -> None:
        vision = pytest.importorskip("torchvision", exc_type=Exception).models
        torch.manual_seed(0)
        model = vision.VisionTransformer(16, 8, DEPTH, 2, WIDTH, 32, num_classes=4)
        x = torch.rand(2, 3, 16, 16)
        found = roles(model, x)
        check_names(found)
        check_added(found)
        with torch.no_grad():
            patches = model.conv_proj(x).flatten(2).transpose(1, 2)
            embedded = torch.cat([model.class_token.expand(2, -1, -1), patches], 1)
            embedded = embedded + model.encoder.pos_embedding
            head = model.heads(model.encoder.ln(found[f"hidden_states.{DEPTH}"])[:, 0])
            torch.testing.assert_close(head, model(x))
        assert torch.equal(found["hidden_states.0"], embedded)

    def test_torchvision_stages_have_none(self) -> None:
        vision = pytest.importorskip("torchvision", exc_type=Exception).models
        model = vision.SwinTransformer([4, 4], 8, [1, 2], [1, 2], [4, 4], num_classes=4)
        with pytest.raises(ValueError, match=r"'attention.1' matched no layer") as error:
            Capture(model, "attention.1")
        assert "blocks come in 2 stages ('features.1', 'features.3')" in str(error.value)
        assert not any(layer.role for layer in list_layers(model))

    @pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "deit3_small_patch16_224"])
    def test_timm(self, name: str) -> None:
        timm = pytest.importorskip("timm", reason="timm is optional and not installed")
        torch.manual_seed(0)
        sizes = {"img_size": 16, "patch_size": 8, "embed_dim": WIDTH, "depth": DEPTH}
        model = timm.create_model(name, num_heads=2, num_classes=4, **sizes).eval()
        x = torch.rand(2, 3, 16, 16)
        found = roles(model, x)
        check_names(found)
        for i, block in enumerate(model.blocks, 1):
            with torch.no_grad():  # scaled after, in some
                attention = block.ls1(found[f"attention.{i}"])
                middle = found[f"hidden_states.{i - 1}"] + attention
                after = middle + block.ls2(found[f"mlp.{i}"])
            torch.testing.assert_close(found[f"hidden_states.{i}"], after)
        theirs = model.forward_intermediates(
            x, intermediates_only=True, output_fmt="NLC", return_prefix_tokens=True
        )
        for i, (patches, first) in enumerate(theirs, 1):
            ours = found[f"hidden_states.{i}"]
            assert torch.equal(ours, torch.cat([first, patches], 1))


class Block(nn.Module):
    """By hand, with low-rank adapters, and options by name."""

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
            self.out = nn.Linear(WIDTH, WIDTH)

        def forward(self, x: Tensor) -> Tensor:
            q, k, v = self.qkv(x).chunk(3, -1)
            return self.out((q @ k.mT).softmax(-1) @ v)

    def __init__(self) -> None:
        super().__init__()
        self.attn = Block.Attention()
        self.up, self.down = nn.Linear(WIDTH, 32), nn.Linear(32, WIDTH)

    def forward(self, x: Tensor, scale: Tensor | None = None) -> tuple[int, Tensor]:
        x = x + self.attn(x)
        return 1, x + self.down(self.up(x).relu())


class Net(nn.Module):
    def __init__(self, depth: int = 2) -> None:
        super().__init__()
        self.stem = nn.Linear(5, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            _, x = block(scale=torch.ones(()), x=x)
        return x.mean(1)


class TestNames:
    x = torch.randn(4, 6, 5)

    def test_the_stream_given_by_name(self) -> None:
        net = Net()
        found = roles(net, self.x)
        check_names(found, 2)
        check_added(found, 2)
        assert torch.equal(found["hidden_states.0"], net.stem(self.x))

    def test_are_in_the_order_of_execution(self) -> None:
        assert list(roles(Net(1), self.x)) == [
            "hidden_states.0", "attention.1", "mlp.1", "hidden_states.1",
        ]  # fmt: skip

    def test_are_in_the_list_of_layers(self) -> None:
        table = list_layers(Net(1), self.x)
        assert {layer.name: layer.role for layer in table if layer.role} == {
            "hidden_states.0": "hidden_states.0",
            "blocks.0.attn.out": "attention.1",
            "blocks.0.down": "mlp.1",
            "blocks.0": "hidden_states.1",
        }
        first = next(layer for layer in table if layer.name == "hidden_states.0")
        assert (first.type, first.shape) == ("given to blocks.0", (4, 6, WIDTH))
        assert re.search(r"blocks.0 +Block +block +4 x 6 x 16 +hidden_states.1", str(table))
        Capture(Net(1), [layer.name for layer in list_layers(Net(1))])  # all can be asked for

    def test_with_modules_and_calls(self) -> None:
        layers = ["stem", "mlp.2", "Attention.?", "hidden_states.1#1"]
        expected = {"stem", "mlp.2", "attention.1", "attention.2", "hidden_states.1"}
        assert roles(Net(), self.x, layers).keys() == expected
        with pytest.raises(ValueError, match="matched no layer"):
            Capture(Net(), "hidden_states.1#x")

    def test_a_module_of_that_name_goes_first(self) -> None:
        net = Net()
        net.mlp = nn.ModuleList([nn.Linear(2, 2)])
        assert Capture(net, "mlp.*").names == ("mlp.0",)
        assert Capture(net, "mlp.1").names == ("mlp.1",)

    def test_numbers_that_are_not_there(self) -> None:
        with pytest.raises(ValueError, match=r"'attention.0' matched no layer. Did you mean 'att"):
            Capture(Net(), "attention.0")
        short = r"Its roles are hidden_states.0 to .2, attention.1 to .2, mlp.1 to .2\. The model"
        with pytest.raises(ValueError, match=short):
            Capture(Net(), "hidden_states.9")

    def test_a_network_that_is_no_transformer(self) -> None:
        net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
        why = (
            r"'hidden_states.\*' matched no layer. It has no roles of a transformer: no ModuleList"
        )
        with pytest.raises(ValueError, match=why):
            Capture(net, "hidden_states.*")
        with pytest.raises(ValueError, match=r"'conv9' matched no layer. The model has"):
            Capture(net, "conv9")

    def test_a_block_that_is_called_twice_under_two_names(self) -> None:
        net = Net(1)
        net.blocks.append(net.blocks[0])
        with pytest.raises(ValueError, match="no roles"):  # a stream with other numbers
            Capture(net, "hidden_states.*")

    def test_attention_of_weights_alone(self) -> None:
        class OwnAttention(nn.Module):
            def __init__(self, norm: bool) -> None:
                super().__init__()
                self.weight = nn.Parameter(torch.randn(WIDTH, WIDTH))
                self.norm = nn.LayerNorm(WIDTH) if norm else nn.Identity()

            def forward(self, x: Tensor) -> Tensor:
                return (
                    self.norm(x + x @ self.weight)
                    if len(self.norm.state_dict())
                    else x @ self.weight
                )

        net = Net()
        for block in net.blocks:
            block.attn = OwnAttention(norm=False)
        check_added(roles(net, self.x), 2)
        for block in net.blocks:
            block.attn = OwnAttention(norm=True)  # and the sum: nothing is the output alone
        with pytest.raises(ValueError, match="no roles"):
            Capture(net, "hidden_states.*")

    def test_projections_that_return_something_else(self) -> None:
        class Mixing(Block.Attention):
            def __init__(self) -> None:
                super().__init__()
                self.heads = nn.Linear(2, 2)  # talking heads

        class Modulated(Block):
            def __init__(self) -> None:
                super().__init__()
                self.attn = Mixing()
                self.scales = nn.Sequential(nn.SiLU(), nn.Linear(WIDTH, 6 * WIDTH))

        net = Net()
        net.blocks = nn.ModuleList(Modulated() for _ in range(2))
        check_added(roles(net, self.x), 2)

    def test_attention_whose_class_does_not_say_so(self) -> None:
        class XCA(Block.Attention):
            pass

        net = Net()
        for block in net.blocks:
            block.attn = XCA()
        check_added(roles(net, self.x), 2)

    def test_attention_alone_is_no_block(self) -> None:
        net = Net()
        net.blocks = nn.ModuleList(Block.Attention() for _ in range(2))
        with pytest.raises(ValueError, match="no roles"):
            Capture(net, "attention.*")
