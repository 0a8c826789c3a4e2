"""The files of the page."""

from pathlib import Path

import mmaction_lite

PAGE = Path(mmaction_lite.__file__).parent / "serve" / "page"


def test_the_page_is_served_and_checked_for_changes(client):
    kinds = {"/": "text/html", "/js/main.js": "text/javascript", "/icons.svg": "image/svg+xml"}
    for path, kind in kinds.items():
        answer = client.get(path)
        assert answer.headers["content-type"].startswith(kind)
        assert answer.headers["cache-control"] == "no-cache"
        again = client.get(path, headers={"If-None-Match": answer.headers["etag"]})
        assert again.status_code == 304


def test_the_files_of_the_page_have_no_inline_code_and_name_no_other_host():
    for path in PAGE.rglob("*"):
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        assert " style=" not in text
        assert "innerHTML" not in text
        assert "insertAdjacentHTML" not in text
        hosts = text.replace("http://www.w3.org/2000/svg", "")
        assert "http://" not in hosts
        assert "https://" not in hosts.replace('placeholder="https://…"', "")
        assert "<script>" not in text
        assert len(text.splitlines()) < 250
