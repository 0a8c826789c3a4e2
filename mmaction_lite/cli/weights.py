"""Commands for public weights: list, describe, download and verify them."""

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from mmaction_lite.cli.options import Json, Offline, Weights, print_json

app = typer.Typer(help="Public weights by name.", no_args_is_help=True, rich_markup_mode=None)
Name = Annotated[str, typer.Argument(help="Name from `mmaction-lite weights list`.")]


@app.command("list")
def list_(
    family: Annotated[str | None, typer.Option(help="Only this family, such as tsm.")] = None,
    dataset: Annotated[str | None, typer.Option(help="Only this data set, such as kinetics400.")] = None,
    source: Annotated[str | None, typer.Option(help="Only this source, such as mmaction2.")] = None,
    license: Annotated[str | None, typer.Option(help="Only licenses that contain this text.")] = None,
    unavailable: Annotated[
        bool, typer.Option("--all", help="Include weights that cannot be loaded yet, with the reason.")
    ] = False,
    as_json: Json = False,
) -> None:
    """List public weights with their published accuracy."""
    from mmaction_lite.weights.catalogue import list_weights

    entries = list_weights(
        family=family, dataset=dataset, source=source, license=license, unavailable=unavailable
    )
    if as_json:
        rows = [entry.as_json() | {"status": entry.status} for entry in entries.values()]
        return print_json({"weights": rows})
    table = Table("name", "data set", "top-1 / top-5", "parameters", "license", "status", box=None)
    for entry in entries.values():
        accuracy = " / ".join(f"{x:.2f}" for x in (entry.top1, entry.top5) if x is not None)
        size = "" if entry.parameters is None else f"{entry.parameters / 1e6:.2f} M"
        terms = entry.license + ", not for commercial use" * entry.non_commercial
        table.add_row(entry.name, entry.dataset, accuracy, size, terms, entry.status)
    Console(width=max(180, Console().width)).print(table)


@app.command()
def info(name: Name, as_json: Json = False) -> None:
    """Describe public weights: network, protocol, accuracy, license, address and cache."""
    from mmaction_lite.weights.catalogue import SOURCES, catalogue, find_entry
    from mmaction_lite.weights.named import card_for, converted_path, original_path

    entry = catalogue().get(name) or find_entry(name)
    card = card_for(entry) if entry.is_available else None
    file = converted_path(entry) if entry.is_available else None
    if as_json:
        return print_json(
            entry.as_json()
            | {
                "status": entry.status,
                "classes": entry.classes if card else None,
                "test_protocol": str(card.test) if card else None,
                "weights_file": str(file) if file else None,
                "is_cached": bool(file and file.exists()),
            }
        )
    facts: dict[str, str] = {
        "name": entry.name,
        "status": entry.status,
        "source": f"{SOURCES[entry.source]}, {entry.original_name}",
        "license": entry.license + ", not for commercial use" * entry.non_commercial,
        "address": entry.url,
        "SHA-256": entry.sha256 or "not published; recorded at the first download",
    }
    if entry.top1 is not None:
        top5 = "" if entry.top5 is None else f" / {entry.top5:.2f}"
        facts["published accuracy"] = f"{entry.top1:.2f}{top5} ({entry.reported_by})"
    if card and file:
        arguments = "".join(f", {key}={value!r}" for key, value in entry.arguments.items())
        original = original_path(entry)
        facts |= {
            "network": f"{entry.builder}(num_classes={len(card.classes)}{arguments}), "
            f"{entry.parameters:,} parameters",
            "classes": f"{len(card.classes)} of {entry.dataset}: {', '.join(card.classes[:3])}, …",
            "test protocol": str(card.test),
            "file": f"{original} ({'cached' if original.exists() else 'not cached'})",
            "weights file": f"{file} ({'cached' if file.exists() else 'not cached'})",
        }
    if entry.note:
        facts["note"] = entry.note
    width = max(map(len, facts))
    for title, value in facts.items():
        print(f"{title:<{width}}  {value}")


@app.command()
def get(
    names: Annotated[list[str], typer.Argument(help="Names from `mmaction-lite weights list`.")],
    offline: Offline = False,
    as_json: Json = False,
) -> None:
    """Download and convert public weights, and print the paths of the weights files."""
    from mmaction_lite.weights.catalogue import find_entry
    from mmaction_lite.weights.named import fetch

    entries = [find_entry(name) for name in names]  # report an unknown name before any download
    paths = {}
    for entry in entries:
        paths[entry.name] = str(fetch(entry))
        if not as_json:
            print(paths[entry.name])
    if as_json:
        print_json({"files": paths})


@app.command()
def verify(
    weights: Weights,
    offline: Offline = False,
    as_json: Json = False,
) -> None:
    """Print a fingerprint of the logits on a generated clip, and compare it if one is known."""
    from mmaction_lite.weights.card import card_of, load
    from mmaction_lite.weights.catalogue import catalogue
    from mmaction_lite.weights.fingerprint import check_fingerprint, fingerprint

    model = load(weights)
    found = fingerprint(model)
    entry = catalogue().get(card_of(model).recipe)
    verified = entry.verified if entry else ()
    for row in verified:
        check_fingerprint(found, row["fingerprint"], str(weights))
    if as_json:
        return print_json({"fingerprint": found, "verified": bool(verified)})
    top = ", ".join(f"{index}: {value:g}" for index, value in found["top"])
    print(
        f"{found['classes']} logits, mean {found['mean']:g}, standard deviation {found['std']:g}, "
        f"L2 norm {found['l2']:g}; largest {top}"
    )
    if verified:
        print(f"equals the fingerprint by {verified[-1]['by']} of {verified[-1]['date']}")
    else:
        print("no verified fingerprint is known for these weights")
