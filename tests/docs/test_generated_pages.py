"""The pages that are written from the package name everything that they are about."""

import json
import re
import runpy
from typing import Any

import generated_pages  # of the folder docs
import pytest

from mmaction_lite import list_recipes, models
from mmaction_lite.models.complexity import list_models
from mmaction_lite.weights.catalogue import catalogue
from tests.docs.pages import ROOT, page_text


def test_every_recipe_has_a_section_with_all_its_fields():
    text = generated_pages.recipes()
    for name, recipe in list_recipes().items():
        section = text.partition(f"### `{name}`")[2].partition("\n### ")[0]
        assert str(recipe) in section
        assert str(recipe.test_protocol) in section


def test_every_builder_is_in_the_table_of_models():
    text = generated_pages.models()
    builders = {name for name in models.__all__ if re.search(r"_r\d+|mobilenet", name)}
    assert builders <= set(re.findall(r"^\| `(\w+)`", text, re.MULTILINE))


def test_the_comparison_with_published_models_has_the_counts_of_the_code():
    """Of the page's own table, which has columns that no code knows."""
    rows = {(row.builder, row.input_shape[2]): row for row in list_models()}
    found = 0
    pattern = r"^\| `(\w+)` \| ([\dx/ ]+) \| ([\d,]+) \| [^|]+ \| ([\d./ ]+) G \|"
    for builder, inputs, size, costs in re.findall(pattern, page_text("docs/models.md"), re.MULTILINE):
        for view, cost in zip(inputs.split(" / "), costs.split(" / "), strict=True):
            row = rows[builder, int(view.partition("x")[0])]
            assert size == f"{row.parameters:,}", builder
            assert cost == f"{row.multiply_adds / 1e9:.2f}", (builder, view)
            found += 1
    assert found >= 15


def test_every_command_has_its_help_text():
    text = generated_pages.commands()
    for command in ("train", "test", "predict", "data validate", "benchmark loader"):
        assert f"## `mmaction-lite {command}`" in text
    assert "--init-from" in text


def test_every_public_module_is_in_the_reference():
    pages = generated_pages.reference()
    names = generated_pages.modules()
    assert {"recipes.recipe", "data.sources.video", "optim.schedules", "errors"} <= set(names)
    for name in names:
        assert f".. automodule:: mmaction_lite.{name}\n" in pages[f"api/{name}.rst"]
        (folder,) = (file for file, text in pages.items() if "/room-" in file and f"* :doc:`{name}`" in text)
        assert (
            f"Folder: :doc:`{folder.removeprefix('api/').removesuffix('.rst')}`" in pages[f"api/{name}.rst"]
        )


def test_pages_that_no_longer_exist_are_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(generated_pages, "models", lambda: "models")
    old = tmp_path / "api" / "old.rst"
    old.parent.mkdir()
    old.write_text("")
    generated_pages.write(tmp_path)
    assert not old.exists()
    assert (tmp_path / "models.md").read_text() == "models"


@pytest.mark.parametrize("room", generated_pages.ROOMS)
def test_every_room_of_the_reference_has_modules(room):
    assert any(generated_pages._room(name) == room for name in generated_pages.modules())


def test_the_page_about_public_weights_is_that_of_the_catalogue():
    text = generated_pages.zoo()
    tables = page_text("docs/zoo.md").partition(generated_pages.ZOO_MARK)[2]
    assert tables == f"\n{text}", "run python docs/generated_pages.py"
    for name, entry in catalogue().items():
        assert (name if entry.is_available else entry.original_name) in text
        assert entry.unavailable in text


def test_the_page_about_export_holds_the_tables_of_the_records():
    name = "docs/use/export.md"
    script = runpy.run_path(str(ROOT / "docs" / "use" / "export.py"))
    assert script["page"](page_text(name)) == page_text(name)
    assert (ROOT / "docs" / "use" / "export.png").stat().st_size < 120e3
    rows = script["rows"]("parity")
    assert {row["builder"] for row in rows} <= set(models.__all__)
    assert all(row[suffix]["logits"] <= 1e-4 for row in rows for suffix in ("onnx", "pt2"))


def test_the_accuracies_of_the_families_are_those_of_the_record():
    rows: dict[str, dict[int, Any]] = {}
    for row in json.loads((ROOT / "docs" / "families.json").read_text()):
        rows.setdefault(row["family"], {})[row["seed"]] = row
    text = page_text("docs/models.md")
    for family, seeds in rows.items():
        found = f"{seeds[0]['test_top1']:.3f}, {seeds[1]['test_top1']:.3f}"
        name = seeds[0]["recipe"].removesuffix("_motions_rgb")
        assert f"| {family} | `{seeds[0]['model']}` | `{name}` | {found} |\n" in text
