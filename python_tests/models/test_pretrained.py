"""Networks that come with the package: exact, checked, and known by name."""

import pytest
import torch

from repsim_fast import models
from repsim_fast._core.tensor_files import read_tensors, write_tensors

ABOUT = {"name": "wrn-10-1", "num_classes": 10, "in_channels": 1}


@pytest.fixture
def network():
    model = models.build("wrn-10-1", num_classes=10, in_channels=1, seed=0)
    model(torch.rand(20, 1, 16, 16))  # running statistics that are no longer 0 and 1
    return model.eval()


def test_a_network_comes_back_in_float32_with_what_is_known_of_it(tmp_path, network):
    path = tmp_path / "tiny-robust.safetensors"
    models.save_pretrained(path, network, **ABOUT, commit="abc", recipe={"lr": 0.2})
    again, about = models.load_pretrained("tiny-robust", folder=tmp_path)
    assert {p.dtype for p in again.parameters()} == {torch.float32}
    assert not again.training
    assert about["commit"] == "abc"
    assert about["recipe"] == {"lr": 0.2}
    for name, value in network.state_dict().items():
        halved = value.half().float() if value.is_floating_point() else value
        assert torch.equal(again.state_dict()[name], halved), name
    x = torch.rand(5, 1, 16, 16)
    torch.testing.assert_close(again(x), network(x), rtol=0.02, atol=0.01)
    assert next(network.parameters()).dtype == torch.float32  # the one handed in is as it was
    assert path.stat().st_size < 2.3 * sum(p.numel() for p in network.parameters())


def test_weights_that_are_not_those_of_the_checksum_are_refused(tmp_path, network):
    path = tmp_path / "changed.safetensors"
    models.save_pretrained(path, network, **ABOUT)
    header, tensors = read_tensors(path)
    tensors["fc.bias"][3] += 1
    write_tensors(path, tensors, header)
    with pytest.raises(ValueError, match="the file is damaged or was changed"):
        models.load_pretrained("changed", folder=tmp_path)
    models.save_checkpoint(path, network, **ABOUT)  # no checksum at all
    with pytest.raises(ValueError, match=r"the header says None"):
        models.load_pretrained("changed", folder=tmp_path)


def test_what_float16_cannot_hold_is_refused(tmp_path, network):
    network.bn.running_var[0] = 1e6
    with pytest.raises(ValueError, match=r"bn.running_var holds numbers beyond the range of float"):
        models.save_pretrained(tmp_path / "x.safetensors", network, **ABOUT)
    assert not list(tmp_path.iterdir())


def test_unknown_names_and_paths_are_refused(tmp_path):
    for name in ("no-such", "../no-such", "weights/x"):
        with pytest.raises(ValueError, match="no pretrained network"):
            models.load_pretrained(name)


def test_the_package_holds_whole_networks_with_their_provenance():
    for name in models.available_pretrained():
        network, about = models.load_pretrained(name)
        assert 0 <= about["robust_accuracy"] <= about["clean_accuracy"] <= 1
        assert about["commit"]
        assert len(about["classes"]) == about["num_classes"]
        x = torch.rand(2, about["in_channels"], 32, 32)
        assert network(x).shape == (2, about["num_classes"])
