"""Write the tables and export.png of the page about `export` from the measurements in docs/use.

After benchmarks/parity.py and benchmarks/exported.py: python docs/use/export.py
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

PAGE = Path(__file__).with_suffix(".md")
RECORDS = PAGE.parent
FORMS = {
    "eager": "eager",
    "folded": "folded",
    "compiled": "compiled",
    "onnx": "ONNX Runtime",
    "onnx int8": "ONNX Runtime int8",
}


def rows(name: str) -> list[dict[str, Any]]:
    """Return the rows of a record in docs/use, sorted by network."""
    found = json.loads((RECORDS / f"{name}.json").read_text(encoding="utf-8"))
    return sorted(found, key=lambda row: row["builder"])


def parity() -> str:
    """Return the table of the differences between exported files and networks, as Markdown."""
    lines = [
        (
            f"`{row['builder']}`" + "".join(f", {key}={value}" for key, value in row["options"].items()),
            "x".join(map(str, row["input"][:3])),
            f"{row['onnx']['logits']:.1e}",
            f"{row['pt2']['logits']:.1e}",
        )
        for row in rows("parity")
    ]
    return markdown(("network", "input", "ONNX Runtime", "torch.export"), lines)


def latency() -> str:
    """Return the table of the CPU time of one clip in milliseconds, as Markdown."""
    return times("latency_ms", lambda milliseconds: f"{milliseconds:.0f}")


def throughput() -> str:
    """Return the table of the clips per second of CPU time in batches of 4, as Markdown."""
    return times("batch_of_4_ms", lambda milliseconds: f"{4000 / milliseconds:.1f}")


def times(key: str, to_text: Callable[[float], str]) -> str:
    """Return a table with a column for every form, and the ratio of int8 to the folded network."""
    lines = []
    for row in rows("exported"):
        if found := row.get(key):
            cells = (to_text(found[name]) if name in found else "–" for name in FORMS)
            ratio = f"{found['onnx int8'] / found['folded']:.2f}"
            lines.append((f"`{row['builder']}`", "x".join(map(str, row["input"][:3])), *cells, ratio))
    return markdown(("network", "input", *FORMS.values(), "time int8 / folded"), lines)


def accuracy() -> str:
    """Return the table of the top-1 accuracies on the generated data set, as Markdown."""
    lines = [
        (
            f"`{row['builder']}`",
            f"{row['top1']['folded']:.1%}",
            f"{row['top1']['onnx']:.1%}",
            f"{row['top1']['onnx int8']:.1%}",
        )
        for row in rows("exported")
        if "top1" in row
    ]
    return markdown(("network", "weights", "ONNX Runtime", "ONNX Runtime int8"), lines)


def markdown(head: tuple[str, ...], lines: list[tuple[str, ...]]) -> str:
    """Return a Markdown table."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ("---",) * len(head), *lines))


def page(text: str) -> str:
    """Return the page with its tables replaced by those of the records."""
    tables = {"parity": parity(), "latency": latency(), "throughput": throughput(), "accuracy": accuracy()}
    for name, table in tables.items():
        before, _, rest = text.partition(f"<!-- {name}: written by `python docs/use/export.py` -->\n")
        after = rest.partition("<!-- end -->")[2]
        mark = f"<!-- {name}: written by `python docs/use/export.py` -->\n"
        text = f"{before}{mark}\n{table}\n\n<!-- end -->{after}"
    return text


def draw(path: Path) -> None:
    """Draw the time of every form relative to the folded network."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    found = [row for row in rows("exported") if "latency_ms" in row]
    figure, axes = plt.subplots(figsize=(9, 3.4), dpi=110)
    for number, name in enumerate(("compiled", "onnx", "onnx int8")):
        ratios = [row["latency_ms"].get(name, 0) / row["latency_ms"]["folded"] for row in found]
        places = [place + 0.27 * (number - 1) for place in range(len(found))]
        bars = axes.bar(places, ratios, 0.26, label=FORMS[name])
        axes.bar_label(bars, [f"{ratio:.2f}" if ratio else "" for ratio in ratios], fontsize=6)
    axes.axhline(1, color="gray", linewidth=0.8)
    axes.set_xticks(range(len(found)), [row["builder"] for row in found], rotation=20, fontsize=8)
    axes.set_ylabel("time / folded network in PyTorch")
    axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    draw(PAGE.with_suffix(".png"))
