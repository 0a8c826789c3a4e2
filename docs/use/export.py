"""Write the tables and export.png of the page about `export` from the measurements in docs/use.

After benchmarks/parity.py and benchmarks/exported.py: python docs/use/export.py
"""

import json
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
    "int8": "own int8 kernels",
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


def speed() -> str:
    """Return the table of the CPU time per clip, alone and in a batch of 4 clips, as Markdown."""
    found = rows("exported")
    names = [name for name in FORMS if any(name in row["latency_ms"] for row in found)]
    lines = []
    for row in found:
        single, batch = row["latency_ms"], row.get("batch_of_4_ms", {})
        cells = []
        for name in names:
            cells.append(f"{single[name]:.0f}" if name in single else "–")
            if name in batch:
                cells[-1] += f" ({batch[name] / 4:.0f})"
        has_both = {"int8", "onnx int8"} <= single.keys()
        ratio = f"{single['onnx int8'] / single['int8']:.2f}" if has_both else "–"
        lines.append((f"`{row['builder']}`", "x".join(map(str, row["input"][:3])), *cells, ratio))
    head = ("network", "input", *(FORMS[name] for name in names), "ratio of both int8")
    return markdown(head, lines)


def markdown(head: tuple[str, ...], lines: list[tuple[str, ...]]) -> str:
    """Return a Markdown table."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ("---",) * len(head), *lines))


def page(text: str) -> str:
    """Return the page with its tables replaced by those of the records."""
    for name, table in (("parity", parity()), ("speed", speed())):
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

    found = rows("exported")
    figure, axes = plt.subplots(figsize=(8, 3.2), dpi=110)
    names = [name for name in ("onnx", "onnx int8") if all(name in row["latency_ms"] for row in found)]
    for number, name in enumerate(names):
        ratios = [row["latency_ms"][name] / row["latency_ms"]["folded"] for row in found]
        places = [place + 0.4 * number - 0.2 for place in range(len(found))]
        bars = axes.bar(places, ratios, 0.38, label=FORMS[name])
        axes.bar_label(bars, fmt="%.2f", fontsize=7)
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
