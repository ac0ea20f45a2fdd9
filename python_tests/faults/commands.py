"""Command lines at random: each must work or end with a message and an exit code."""

from __future__ import annotations

import random
from pathlib import Path

from python_tests.faults.child import command, run
from python_tests.faults.table import Row

SECONDS, MEBIBYTES = 60, 500
CODES = (0, 1, 2)
OPTIONS = {
    "train": ("--model", "--preset", "--method", "--eps", "--attack-steps", "--epochs",
              "--batch-size", "--lr", "--augment", "--ema", "--autocast", "--size", "--limit",
              "--test-limit", "--seed", "--device", "--threads", "--data", "--out"),
    "compare": ("--split", "--size", "--limit", "--layers", "--measure", "--jackknife",
                "--batch-size", "--passes", "--attack", "--eps", "--attack-steps", "--autocast",
                "--precision", "--seed", "--device", "--threads", "--data", "--out"),
    "attack": ("--attack", "--norm", "--eps", "--steps", "--restarts", "--split", "--size",
               "--limit", "--batch-size", "--seed", "--device", "--threads", "--data", "--out"),
    "info": (),
}  # fmt: skip
# No number that is a wish for long work, which is none of ours to refuse.
VALUES = ("", "0", "-1", "1", "2", "4", "nan", "inf", "-inf", "1e-9", "8/255", "1/0", "0.5", "x",
          "'", "a" * 300, "\x01", "ü", "../x", "/dev/zero", "/proc/self/mem",
          "9223372036854775807",
          "-9223372036854775808", "1" * 400, "cpu", "cuda", "meta", "digits", "folder:/",
          "cifar10:.", "resnet-8", "pgd", "cka", "cca", "test", "bfloat16", "linf",
          "crop")  # fmt: skip
# Of these, a large number is such a wish.
_LONG = ("--epochs", "--steps", "--attack-steps", "--restarts", "--passes", "--jackknife")


def fuzzed(folder: Path, commands: int, dice: random.Random) -> Row:
    row = Row("command line at random", "exit 0; refused: 1 or 2 and a message, within 500 MB")
    network = folder / "n.safetensors"
    base = [*("--data", "digits", "--limit", "40", "--threads", "1")]
    small = [*base, "--epochs", "1", "--test-limit", "10", "--model", "resnet-8"]
    made = run(command("train", *small, "--out", network), folder / "log")
    assert made.code == 0, made.output
    # Of one that does nothing: what the libraries of the process take.
    memory = run(command("--help"), folder / "log").mebibytes + MEBIBYTES
    for number in range(commands):
        words = _words(dice, network, base, small, folder / f"out{number}")
        ended = run(command(*words), folder / "log", processor=SECONDS)
        said = ended.output.strip()
        fault = ""
        if ended.code not in CODES:
            fault = f"exit {ended.code}"
        elif "Traceback" in said or "error: unexpected" in said:
            fault = "an error without an explanation"
        elif ended.code and not said:
            fault = "no message"
        elif ended.mebibytes > memory:
            fault = f"{ended.mebibytes:.0f} MiB"
        outcome = "lost" if fault else "refused" if ended.code else "survived"
        row.count(outcome, f"{fault}: {' '.join(map(repr, words))}: {said[-400:]}")
    return row


def _words(
    dice: random.Random, network: Path, base: list[str], small: list[str], out: Path
) -> list[str]:
    name = dice.choice(("train", "compare", "compare", "attack", "info", "nothing", ""))
    words = {
        "train": [*small, "--out", f"{out}.safetensors"],
        "compare": [str(network), "resnet-8", *base, "--out", str(out)],
        "attack": [str(network), *base, "--steps", "2", "--attack", "pgd"],
    }.get(name, [])
    for _ in range(dice.choice((0, 1, 1, 2, 3))):
        what = dice.random()
        if what < 0.7 and OPTIONS.get(name):
            option = dice.choice(OPTIONS[name])
            value = dice.choice(VALUES)
            if option in _LONG and value.startswith(("9", "1" * 9)):
                value = "3"
            if option == "--out" and value.startswith("/dev"):
                value = "no/such"
            words += [option, str(out) if option == "--out" and value == "" else value]
        elif what < 0.85 and words:
            del words[dice.randrange(len(words))]
        else:
            words.insert(dice.randrange(len(words) + 1), dice.choice(VALUES))
    return [name, *words]
