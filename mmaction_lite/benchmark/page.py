"""The page of the documentation that shows results of the benchmark."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmaction_lite.benchmark.settings import SETTINGS
from mmaction_lite.benchmark.tables import (
    behind,
    describe,
    errors,
    feeding_table,
    first_page_table,
    is_fed_from_files,
    main_table,
    markdown,
    picture,
    ratio_table,
    scaling_table,
    stage_table,
)
from mmaction_lite.files import write_atomically


def write_page(results: Sequence[tuple[Path, dict[str, Any]]], page: Path) -> None:
    """The documentation's page, with a picture of the first results beside each of their files."""
    for file, found in results:
        if found["options"]["devices"] == 1:
            picture(found, file.with_suffix(".png"))
    text = render_page(results, page.parent)
    write_atomically(page, lambda out: out.write(text.encode()))


def render_page(results: Sequence[tuple[Path, dict[str, Any]]], folder: Path) -> str:
    """The page's text; `folder` is where it stands."""
    alone = [(file, found) for file, found in results if found["options"]["devices"] == 1]
    teams = [(file, found) for file, found in results if found["options"]["devices"] > 1]
    parts = [HEAD]
    for file, found in alone:
        link = file.relative_to(folder).as_posix() if file.is_relative_to(folder) else file.as_posix()
        here = found["environment"]
        parts += [
            f"## {here['processor'] if here['device'] == 'cpu' else here['device']}"
            + ("" if found["options"]["data"] else ", without files"),
            describe(found),
            *([found["note"]] if "note" in found else []),
            main_table(found, f"[json]({link})"),
            "### Ours over theirs",
            RATIOS,
            ratio_table(found),
            *(["A peer is ahead in:", "\n".join(behind(found))] if behind(found) else []),
            f"![ratios]({Path(link).with_suffix('.png').as_posix()})",
            "### Where a step goes",
            STAGES,
            stage_table(found),
            *(
                ["### Whether decoding keeps up", FEEDING, feeding_table(found)]
                if is_fed_from_files(found)
                else []
            ),
            *(
                ["What could not be measured:", "\n".join(f"* {line}" for line in errors(found))]
                if errors(found)
                else []
            ),
        ]
    if alone:
        gpus = [found for _, found in alone if found["options"]["device"] == "cuda"]
        shown = gpus[0] if gpus else alone[0][1]
        parts += ["## The first page's numbers", FIRST_PAGE, first_page_table(shown), _settings()]
    parts += ["## More devices", SCALING]
    for _, found in teams:
        parts += [describe(found), scaling_table(found)]
    return "\n\n".join(parts) + "\n"


def _settings() -> str:
    lines = [
        (setting.name, f"`{setting.build().name}`" if isinstance(setting.recipe, str) else "–", setting.about)
        for setting in SETTINGS
    ]
    return markdown(("setting", "recipe", "about"), lines)


HEAD = """\
# Benchmark

This page is written by `mmaction-lite benchmark page docs/benchmarks/*.json --out docs/benchmark.md`: every
number comes from one of those files, which `mmaction-lite benchmark` wrote with the command that stands
above each table, and a test fails when page and files differ.

What is compared is the whole: each framework's own training step with its own optimizer and preprocessing,
on the same number of clips of the same shape, with the same number of threads. Frameworks work in turns,
one process each, and while one works the others are stopped; the ratio is taken round by round. Numbers of
one table can be compared with each other, numbers of different tables cannot.

* *iteration (data)*: a training step with clips from H.264 files, decoded by as many processes as there are
  cores, or, where a GPU takes more clips than these can decode, from JPEG frames; in brackets, how long it
  waited for clips. Median over all steps.
* *step alone*: the same with pixels that are there already, in the memory from which each framework's loader
  hands them over.
* *inference*: the same clips through the test path: preprocessing, network, probabilities. *In 8 bits*: as
  `test --int8` computes, beside the peer in float32.
* *memory*: how far training steps raise the peak of the process (on a GPU: of what PyTorch allocates, weights
  and the trials of cuDNN included).
* *of the limit*: the multiply-adds of a training step (three times those of the forward pass) over what the
  machine's matrix product does in that time, and the bytes that the operators read and write over what it
  copies; the first for the precision alone whose matrix product was measured.
* *clips/s*: of the iteration with data, where that was measured, of the step alone elsewhere.

Where ours is in bfloat16, MMAction2's autocast is in float16, for its heads hand logits to NumPy, which has
no bfloat16. Other users of a machine make single numbers vary by a tenth and more; ratios vary less. A +
behind a commit says that files of the package were changed since.

`make peers` installs the other frameworks, each in an environment of its own, and `mmaction-lite benchmark`
then measures beside them. Who has MIT's TSM or PySlowFast, which have no packages, adds numbers of theirs
with `--peer-result FILE`, and the page says who measured them."""

RATIOS = """\
Median of the rounds, and the least and the most. Below 1 ours is faster or smaller. *Logits differ by* is
the largest difference after our converter has read the peer's weights, over the largest logit: both are the
same network. It is measured on processors alone."""

STAGES = """\
Ours, milliseconds, median. Backward contains the loss. *In products*: the share of the time inside operators
that is spent in convolutions and matrix products, and how fast these are in units of the machine's matrix
product. Only the rest could be spared without faster kernels or less arithmetic. On a GPU every stage is
waited for, and together they take longer than a step, in which the processor runs ahead."""

FEEDING = """\
Processor time to read one training clip, open to crop, and how many decoding processes the network alone
would keep busy. Where videos need more than three quarters of those that there are, JPEG frames take their
place."""

FIRST_PAGE = """\
Of the page that this project began from (8 V100 with 32 GB, two Xeon Gold 6148, PyTorch 1.4, 2020; the
batch is that of one GPU). They are printed as history: hardware and batch differ, so they are not to be
compared with those above."""

SCALING = """\
`torchrun --standalone --nproc-per-node 8 -m mmaction_lite train RECIPE --data DATA --out OUT` trains on
eight GPUs of one machine; for several machines see [training.md](training.md). `mmaction-lite benchmark
--devices N --synthetic` measures N processes that train together, and

```
mmaction-lite benchmark scaling RESULT.json --recipe RECIPE --devices 8 --link-gb 50 --loader-clips 400
```

says what N devices will take, from a step of one, the bytes of its gradients, the rate of the slowest link
and what the decoding processes deliver. It was checked against processes on this machine: each does its
steps *apart*, then exchanges as many numbers as it has gradients and nothing else, then both together. They
share memory and caches, which is why *apart* and not a process alone is what the prediction starts from."""
