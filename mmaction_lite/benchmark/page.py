"""Generate the benchmark page of the documentation."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmaction_lite.benchmark.first_page import first_page_form, is_of_the_first_page, summary
from mmaction_lite.benchmark.scale_tables import scale_sections
from mmaction_lite.benchmark.settings import SETTINGS
from mmaction_lite.benchmark.tables import (
    SOFTWARE,
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
from mmaction_lite.files import check_replaceable, has_marker, write_atomically


def write_page(results: Sequence[tuple[Path, dict[str, Any]]], page: Path) -> None:
    """Write the page and, beside each result file of a single device, its bar chart.

    Args:
        results: result files with their contents.
        page: Markdown file to write.

    Raises:
        UserError: the page or a chart would replace a file that this function did not write.
    """
    check_replaceable(page, "a benchmark page", has_marker(b"`mmaction-lite benchmark page"))
    alone = [(file, found) for file, found in results if found["options"]["devices"] == 1]
    for file, _ in alone:
        check_replaceable(file.with_suffix(".png"), "a chart of mmaction-lite", has_marker(SOFTWARE.encode()))
    for file, found in alone:
        picture(found, file.with_suffix(".png"))
    text = render_page(results, page.parent)
    write_atomically(page, lambda out: out.write(text.encode()))


def render_page(results: Sequence[tuple[Path, dict[str, Any]]], folder: Path) -> str:
    """Return the text of the page.

    Args:
        results: result files with their contents.
        folder: folder of the page; links are relative to it.
    """
    alone = [(_link(file, folder), found) for file, found in results if found["options"]["devices"] == 1]
    distributed = [found for _, found in results if found["options"]["devices"] > 1]
    shown = _of_the_first_page(alone)
    parts = [HEAD]
    for link, found in shown:
        parts += [
            f"## {_machine(found)}",
            summary(found),
            first_page_form(found, f"[log]({link})"),
            *_ratios(link, found),
        ]
    made = [f"{_machine(found)}: {describe(found)}" for _, found in shown]
    parts += ["<details><summary>How the numbers were made</summary>", RULES, *made, "</details>"]
    for link, found in alone:
        is_above = any(found is each for _, each in shown)
        parts += _details(link, found, is_above)
    if alone:
        gpus = [found for _, found in alone if found["options"]["device"] == "cuda"]
        today = gpus[0] if gpus else alone[0][1]
        parts += ["## Numbers of the original page", FIRST_PAGE, first_page_table(today), _settings()]
    parts += ["## Compare results and commits", GUARD, "## Several devices", SCALING]
    for found in distributed:
        parts += [describe(found), scaling_table(found)]
    parts += scale_sections(folder)
    return "\n\n".join(parts) + "\n"


def _link(file: Path, folder: Path) -> str:
    return file.relative_to(folder).as_posix() if file.is_relative_to(folder) else file.as_posix()


def _machine(found: dict[str, Any]) -> str:
    here = found["environment"]
    return here["processor"] if here["device"] == "cpu" else here["device"]


def _of_the_first_page(alone: Sequence[tuple[str, dict[str, Any]]]) -> list[tuple[str, dict[str, Any]]]:
    """Return the results for the tables on top: of each machine, the first with rows of the first page."""
    shown: dict[str, tuple[str, dict[str, Any]]] = {}
    for link, found in alone:
        if is_of_the_first_page(found):
            shown.setdefault(_machine(found), (link, found))
    return list(shown.values())


def _ratios(link: str, found: dict[str, Any]) -> list[str]:
    """Return the ratios to other frameworks: table, the measurements in which we are behind, picture."""
    lines = behind(found)
    return [
        "### Ratios to other frameworks",
        RATIOS,
        ratio_table(found),
        *(["Measurements in which another framework is ahead:", "\n".join(lines)] if lines else []),
        f"![ratios]({Path(link).with_suffix('.png').as_posix()})",
    ]


def _details(link: str, found: dict[str, Any], is_above: bool) -> list[str]:
    """Return the section with all measurements of a file.

    Args:
        link: link to the file.
        found: its content.
        is_above: whether its ratios and description stand on top of the page.
    """
    return [
        f"## {_machine(found)}: all measurements"
        + ("" if found["options"]["data"] else ", without data loading"),
        *([] if is_above else [describe(found)]),
        *([found["note"]] if "note" in found else []),
        main_table(found, f"[json]({link})"),
        *([] if is_above else _ratios(link, found)),
        "### Time per stage",
        STAGES,
        stage_table(found),
        *(["### Decoding throughput", FEEDING, feeding_table(found)] if is_fed_from_files(found) else []),
        *(
            ["Measurements that failed:", "\n".join(f"* {line}" for line in errors(found))]
            if errors(found)
            else []
        ),
    ]


def _settings() -> str:
    lines = [
        (setting.name, f"`{setting.build().name}`" if isinstance(setting.recipe, str) else "–", setting.about)
        for setting in SETTINGS
    ]
    return markdown(("setting", "recipe", "about"), lines)


HEAD = """\
# Benchmark

This page is generated by `mmaction-lite benchmark page docs/benchmarks/*.json --out docs/benchmark.md`.
One table per machine, in the form of the first benchmark page of this project: its rows in its order, each
followed by the other frameworks of the setting. *Iter time* is a whole training iteration with clips from
files; the *data time* in brackets is the part that waits for clips. *Memory* is what training steps add to
the process. *Setting* is the recipe; *ckpt & log* links the measurement and names the weights that `load`
accepts. MMAction2 succeeds open-mmaction, and MIT TSM is HAN of the first page. The clips are generated with
the size, length and key frames of Kinetics-400. Ratios below 1 mean that mmaction-lite is faster or smaller.
Compare numbers only within one table."""

RULES = """\
Every number of this page comes from a JSON file. Each file was written by `mmaction-lite benchmark` with
the command printed in its description. A test fails if the page and the files differ.

The benchmark compares complete training steps: each framework runs its own training step with its own
optimizer and preprocessing, on the same batch size, clip shape and number of threads. Each framework
runs in its own process. The frameworks take turns; while one of them is measured, the processes of
the others are stopped. Ratios are computed per round. Compare numbers only within one table, not between
tables.

* *iteration (data)*: duration of a training step with clips from H.264 files, decoded by one worker per
  CPU core. If a GPU needs more clips than the workers can decode, the clips come from JPEG frames
  instead. The data time, in brackets, is the time that the iteration waits for clips. Median over all
  steps.
* *training step*: the same step on pixels that are already in memory, in the kind of memory from which
  the data loader of each framework delivers them.
* *inference*: the same clips through the test path: preprocessing, network, probabilities.
* *memory*: by how much training steps raise the peak memory of the process. On a GPU: peak memory
  allocated by PyTorch, including the weights and the algorithm search of cuDNN.
* *of peak*: achieved rates of a training step relative to the peak rates of the machine. Multiply-adds
  (three times those of the forward pass) relative to a large matrix product, given only for the
  precision in which the matrix product was measured; memory traffic of all operators relative to a large
  copy.
* *clips/s*: throughput of the iteration with data if it was measured, otherwise of the training step.

Clips without files have the memory format in which the framework's own pipeline leaves them: channels-last
for MMAction2, contiguous for the others.

In tables with bfloat16, MMAction2 runs under float16 autocast: its heads convert logits to NumPy, which
has no bfloat16. The machines are shared. Single numbers vary by 10 % and more, ratios vary less. A `+`
after a commit means that files of the package had uncommitted changes.

`make peers` installs each of the other frameworks into its own environment. `mmaction-lite
benchmark` then measures them, too. MIT TSM and PySlowFast have no package; they are measured from checkouts
that you have: `--peer-source mit_tsm=FOLDER --peer-source pyslowfast=FOLDER`. The tables name the commit of
the checkout. Both run as their scripts do, without `DataParallel`: optimizer groups, partial batch
normalization, loss, clipping. PySlowFast imports `ROIAlign` of detectron2 and names of PyTorchVideo's
development version, which recognition does not use; stand-ins take their places. Results measured elsewhere
are added with `--peer-result FILE`; the page names who measured them."""

RATIOS = """\
Median, minimum and maximum over the rounds. A ratio below 1 means that mmaction-lite is faster or uses
less memory. *difference of logits*: largest absolute difference of the logits after our converter has
loaded the weights of the other framework, relative to the largest logit. A small value shows that both
networks compute the same function. Measured on CPUs only."""

STAGES = """\
Median time in milliseconds per stage of the mmaction-lite training step. The backward stage includes the
loss. *matrix operations*: fraction of the operator time spent in convolutions and matrix products, and
their rate relative to the peak matrix product of the machine. Only the remaining fraction can be reduced
without faster kernels or less arithmetic. On a GPU each stage is synchronized, so the stages add up to
more than a step, in which the CPU runs ahead of the GPU."""

FEEDING = """\
CPU time to read one training clip, from opening the file to the cropped pixels, and the number of
workers that the network alone would keep busy. If decoding video would need more than three quarters of
the workers, the benchmark uses JPEG frames."""

FIRST_PAGE = """\
Numbers of the page with which this project started (8 V100 with 32 GB, two Xeon Gold 6148, PyTorch 1.4,
2020; batch size per GPU). They are kept as history. Hardware and batch sizes differ from those above, so
the numbers are not comparable."""

GUARD = """\
`--quick` measures three rows with one clip per step, without files. `--against COMMIT` measures an older
commit of the package in the same turns, instead of other frameworks: its files are exported from the git
repository to a temporary folder and deleted at the end. Ratios whose range over the rounds excludes 1 are
listed.

```
mmaction-lite benchmark --quick --against HEAD
mmaction-lite benchmark compare OLD/benchmark.json NEW/benchmark.json --check
```

For example, since commit f3525af5c VideoMAE recomputes the inputs of linear layers in the backward pass
(`--quick --recipes 'VideoMAE-S 16x4' --against f3525af5c`, [log](against.json)):

```text
* VideoMAE-S 16x4, mmaction-lite 0.2.0.dev0, commit f3525af5c:
  ratio of the memory 1 (1–1) → 0.711 (0.711–0.711), -29%
```

`compare` lists the cells of two results that moved: their ranges over the rounds do not overlap, and their
medians differ by more than 3 %. Times are compared if both were measured on the same kind of machine with the
same options, otherwise ratios only. `--check` ends with an error if this package became slower or larger."""

SCALING = """\
`torchrun --standalone --nproc-per-node 8 -m mmaction_lite train RECIPE --data DATA --out OUT` trains on
eight GPUs of one machine; for several machines see [training.md](training.md). `mmaction-lite benchmark
--devices N --synthetic` measures N processes that train together.

```
mmaction-lite benchmark scaling RESULT.json --recipe RECIPE --devices 8 --link-gb 50 --loader-clips 400
```

predicts the iteration time on N devices from the training step of one device, the size of its gradients,
the bandwidth of the slowest link and the throughput of the decoding workers. The table below compares
predictions with measurements on CPU processes of one machine. Each process first runs training steps
without all-reduce, then an all-reduce of as many values as it has gradients, then both together. The
processes share memory and caches, so the prediction starts from the step without all-reduce of all
processes and not from a single process."""
