"""Draw the pictures of the page about `serve`, with a browser that is installed.

After the demo:

    mmaction-lite serve runs/demo/tsm --data data/motions --split test --run runs/demo/tsm
    python docs/use/serve.py http://127.0.0.1:8000 /usr/bin/chromium
"""

import io
import sys
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

HERE = Path(__file__).parent
PHONE = {"viewport": {"width": 360, "height": 740}, "device_scale_factor": 1}
DESKTOP = {"viewport": {"width": 1240, "height": 960}}


def show_example(page: Any, title: str) -> None:
    """Choose an example, and wait for its timeline."""
    page.get_by_role("button", name=title).click()
    page.wait_for_selector("#downloads button", timeout=120_000)


def picture(page: Any) -> Image.Image:
    """Return what the window shows."""
    page.wait_for_timeout(1500)  # for the videos
    return Image.open(io.BytesIO(page.screenshot()))


def save(image: Image.Image, name: str) -> None:
    """Save a picture with 256 colors, which keeps it small."""
    image.convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=2, dither=Image.Dither.NONE).save(
        HERE / name, optimize=True
    )


def draw(browser: Any, address: str) -> None:
    """Draw all pictures."""
    page = browser.new_page(**DESKTOP, reduced_motion="reduce")
    page.goto(address)
    show_example(page, "several actions")
    page.locator("#track").click(
        position={"x": 0.86 * page.locator("#track").bounding_box()["width"], "y": 10}
    )
    save(picture(page), "serve.png")

    page = browser.new_page(**DESKTOP, color_scheme="dark")
    page.goto(f"{address}/#/data")
    page.wait_for_selector(".clip")
    save(picture(page), "serve_data.png")

    phone = browser.new_context(**PHONE, reduced_motion="reduce")
    screens = [phone.new_page() for _ in range(3)]
    for screen, view in zip(screens, ("video", "video", "run"), strict=True):
        screen.goto(f"{address}/#/{view}")
    show_example(screens[1], "grow")
    screens[1].locator("#track").press("End")
    screens[1].click("#heat-switch")
    screens[1].wait_for_selector("#live:has-text('Grad-CAM of')", state="attached")
    parts = [picture(screen) for screen in screens]
    sheet = Image.new("RGB", (sum(part.width for part in parts) + 40, parts[0].height), "white")
    for number, part in enumerate(parts):
        sheet.paste(part, (number * (part.width + 20), 0))
    save(sheet, "serve_phone.png")


if __name__ == "__main__":
    with sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=sys.argv[2], args=["--no-sandbox", "--disable-gpu"])
        draw(started, sys.argv[1].rstrip("/"))
