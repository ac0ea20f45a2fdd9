"""Tokens with a mask, and other arrays, as --data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from python_tests.support.commands import Run
from python_tests.support.sentences import padded, sentences
from repsim_fast import compare, data, models
from repsim_fast.comparison.recording import Recording
from repsim_fast.data import load_arrays
from repsim_fast.report import load_folder

CODE = "from python_tests.support.sentences import Encoder\n"
HOW = ("--layers", "layers.*", "--layers", "norm", "--maps", "tokens", "--threads", 1)


@pytest.fixture
def net(tmp_path: Path) -> str:
    """Name of a transformer with weights, in code of one's own."""
    path = tmp_path / "mine.py"
    path.write_text(CODE)
    weights = tmp_path / "weights.pt"
    torch.save(models.load(f"{path}:Encoder", seed=3).state_dict(), weights)
    return f"{path}:Encoder={weights}"


def tokens(folder: Path, length: int, mask: str = "attention_mask") -> Path:
    found = padded(sentences(40), length)
    path = folder / f"{length}-{mask}.npz"
    np.savez(path, **{"input_ids": found["input_ids"], mask: found["attention_mask"]})
    return path


def test_padding_says_nothing(run: Run, tmp_path: Path, net: str) -> None:
    both = padded(sentences(40), 11)
    wanted = compare(
        [models.load(net)], both, layers=["layers.*", "norm"], maps="tokens", progress=False
    )
    for length in (11, 24):
        out = tmp_path / f"out{length}"
        done = run("compare", net, "--data", tokens(tmp_path, length), *HOW, "--out", out)
        assert done.exit_code == 0, done.output
        assert "40 samples of input_ids, attention_mask" in done.output
        np.testing.assert_allclose(load_folder(out).value, wanted.value, atol=1e-6)


def test_images_with_labels(run: Run, tmp_path: Path) -> None:
    digits = data.load("digits", "test", limit=40)
    path, net, out = (tmp_path / name for name in ("set.npz", "net.safetensors", "out"))
    np.savez(path, images=digits.images[:, 0].numpy(), labels=digits.labels.numpy())
    spec = f"npz:{path}"
    quick = ("--data", spec, "--model", "resnet-8", "--epochs", 1, "--eval-steps", 1)
    done = run("train", *quick, "--out", net)
    assert done.exit_code == 0, done.output
    done = run("compare", net, "resnet-8", "--data", spec, "--layers", "fc", "--out", out)
    assert done.exit_code == 0, done.output
    assert load_folder(out).n_samples == 40


def test_layers_by_role(run: Run, tmp_path: Path, net: str) -> None:
    how = ("--layers", "hidden_states.*", "--layers", "mlp.2", "--maps", "mean", "--threads", 1)
    data = ("--data", tokens(tmp_path, 11))
    done = run("compare", net, *data, *how, "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    result = load_folder(tmp_path / "out")
    (name,) = result.models
    assert result[name, name].rows == (
        "hidden_states.0",
        "hidden_states.1",
        "mlp.2",
        "hidden_states.2",
    )
    wrong = run("compare", net, *data, "--layers", "mlp.9", "--out", tmp_path / "wrong")
    assert wrong.exit_code != 0
    assert "Its roles are hidden_states.0 to .2, attention.1 to .2, mlp.1 to .2" in wrong.output


def test_recorded(run: Run, tmp_path: Path, net: str) -> None:
    data = ("--data", tokens(tmp_path, 11), "--limit", 30, "--mask", "attention_mask")
    made = run("record", net, *data, *HOW, "--out", tmp_path / "rec")
    assert made.exit_code == 0, made.output
    (folder,) = (tmp_path / "rec").iterdir()
    real = load_arrays(data[1], limit=30)["attention_mask"].sum()
    assert Recording.open(folder).n_samples == int(real)
    for name, command in {"played": (folder, "--threads", 1), "run": (net, *data, *HOW)}.items():
        done = run("compare", *command, "--out", tmp_path / name)
        assert done.exit_code == 0, done.output
    played, again = (load_folder(tmp_path / name).value for name in ("played", "run"))
    np.testing.assert_array_equal(played, again)


def test_a_mask_by_another_name(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "theirs.py"
    path.write_text(
        f"{CODE}class Theirs(Encoder):\n"
        "    def forward(self, input_ids, real):\n"
        "        return super().forward(input_ids, real)\n"
    )
    data = tokens(tmp_path, 24, "real")
    command = ("compare", f"{path}:Theirs", "--data", data, *HOW, "--out")
    for name, mask in {"with": ("--mask", "real"), "without": ()}.items():
        done = run(*command, tmp_path / name, *mask)
        assert done.exit_code == 0, done.output
    named, unnamed = (load_folder(tmp_path / name).value for name in ("with", "without"))
    assert float(np.abs(named - unnamed).max()) > 1e-3
    wrong = run(*command, tmp_path / "wrong", "--mask", "attention_mask")
    assert wrong.exit_code == 1
    assert "the model's inputs have no 'attention_mask'" in wrong.output


def test_images_that_attack_saved(run: Run, tmp_path: Path, checkpoints: dict[str, Path]) -> None:
    saved = tmp_path / "attacked.safetensors"
    few = ("--data", "digits", "--limit", 40, "--threads", 1)
    assert run("attack", checkpoints["pgd"], *few, "--steps", 1, "--out", saved).exit_code == 0
    done = run(
        "compare", *checkpoints.values(), "--data", saved, "--threads", 1, "--out", tmp_path / "out"
    )
    assert done.exit_code == 0, done.output
    assert load_folder(tmp_path / "out").n_samples == 40


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--size", 8), "--size: only for images, --data"),
        (("--attack", "pgd"), "--attack: only for images, --data"),
        (("--mean", "0.5", "--std", "0.5"), "--mean: normalises images (N, C, H, W)"),
        (("--data", "none.npz"), "none.npz"),
    ],
)
def test_bad_input(
    run: Run, tmp_path: Path, net: str, options: tuple[object, ...], message: str
) -> None:
    out = tmp_path / "out"
    done = run("compare", net, "--data", tokens(tmp_path, 11), *HOW, "--out", out, *options)
    assert done.exit_code == 1
    assert message in done.output
    assert not (out / "report.html").exists()


def test_texts_of_hugging_face_folders(run: Run, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="it is optional and not installed")
    config = transformers.DistilBertConfig(
        vocab_size=60, dim=8, n_layers=2, n_heads=2, hidden_dim=8
    )
    names = [f"hf:{tmp_path / name}" for name in ("one", "other")]
    for seed, name in enumerate(names):
        torch.manual_seed(seed)
        transformers.DistilBertModel(config).save_pretrained(name.removeprefix("hf:"))
    spec, out = tokens(tmp_path, 11), tmp_path / "out"
    how = ("--layers", "hidden_states.*", "--maps", "mean", "--threads", 1)
    result = run("compare", *names, "--data", spec, *how, "--out", out)
    assert result.exit_code == 0, result.output
    assert "40 samples in" in result.output
    found = load_folder(out)
    nets = {name: models.load(full) for name, full in zip(("one", "other"), names, strict=True)}
    wanted = compare(nets, load_arrays(spec), layers="hidden_states.*", maps="mean")
    np.testing.assert_allclose(found["one", "other"].value, wanted["one", "other"].value, atol=1e-6)
    assert "images in [0, 1]" not in (out / "report.html").read_text()


def test_masks_of_some_layers(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "ours.py"
    path.write_text(CODE)
    data = tokens(tmp_path, 24)
    command = ("compare", f"{path}:Encoder", "--data", data, *HOW, "--maps", "mean", "--out")
    given = {
        "plain": (),
        "named": ("--mask", "*=attention_mask"),
        "none": ("--mask", "*="),
        "both": ("--mask", "layers.0.*=", "--mask", "*=attention_mask"),
    }
    for name, mask in given.items():
        done = run(*command, tmp_path / name, *mask)
        assert done.exit_code == 0, done.output
    plain, named, none, both = (load_folder(tmp_path / name).value for name in given)
    np.testing.assert_array_equal(plain, named)
    assert float(np.abs(none - named).max()) > 1e-3
    assert float(np.abs(both - named).max()) > 1e-3
    assert float(np.abs(both - none).max()) > 1e-3
    for wrong in (("a", "b"), ("a", "layers.0=b")):
        refused = run(*command, tmp_path / "no", *(w for one in wrong for w in ("--mask", one)))
        assert refused.exit_code == 2
        assert "expected one NAME, or PATTERN=NAME of some layers" in " ".join(
            refused.output.split()
        )


def test_masks_beside_recordings(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "ours.py"
    path.write_text(CODE)
    data, mask = tokens(tmp_path, 24), ("--mask", "layers.0.*=")
    how, recorded = (*HOW, "--maps", "mean"), tmp_path / "recorded"
    done = run("record", f"{path}:Encoder", "--data", data, *how, *mask, "--out", recorded)
    assert done.exit_code == 0, done.output
    [folder] = recorded.iterdir()
    for options, expected in ((mask, 0), ((), 0), (("--mask", "layers.1.*="), 1)):
        played = run("compare", folder, *options, "--out", tmp_path / "played")
        assert played.exit_code == expected, played.output
    assert "--mask: expected" in " ".join(played.output.split())
