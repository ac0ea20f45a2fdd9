"""The callback of Transformers, with the real trainer."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")

from repsim_fast.adapters.transformers import CompareWithReference  # noqa: E402


@pytest.mark.filterwarnings("ignore")
def test_numbers_every_so_many_steps_go_to_the_log(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=30,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=12,
    )
    model = transformers.BertForSequenceClassification(config)
    ids = torch.randint(30, (32, 8), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[::2, 6:] = 0
    data = [
        {"input_ids": i, "attention_mask": m, "labels": torch.tensor(0)}
        for i, m in zip(ids, mask, strict=True)
    ]
    batches = [
        {"input_ids": i, "attention_mask": m}
        for i, m in zip(ids.split(8), mask.split(8), strict=True)
    ]
    callback = CompareWithReference(
        copy.deepcopy(model), batches, every=3, maps="mean", layers="*output.dense"
    )
    trainer = transformers.Trainer(
        model,
        transformers.TrainingArguments(
            output_dir=str(tmp_path),
            max_steps=6,
            per_device_train_batch_size=8,
            learning_rate=0.01,
            report_to=[],
            use_cpu=True,
            disable_tqdm=True,
            save_strategy="no",
        ),
        train_dataset=data,
        callbacks=[callback],
    )
    callback.log = trainer.log
    trainer.train()
    assert model.training
    assert list(callback.monitor.figures) == [3, 6]
    logged = [entry for entry in trainer.state.log_history if "cka/mean_same_layer" in entry]
    assert [entry["step"] for entry in logged] == [3, 6]
    names = [name for name in logged[0] if name.startswith("cka/layer/")]
    assert len(names) == 4
    assert any(logged[-1][name] < 0.9999 for name in names)
