"""Forms are received within limits, and their files are private and short-lived."""

import socket
import time

from starlette.datastructures import Headers

from mmaction_lite.serve.uploads import MAX_VALUE_BYTES, UploadFolder, stated_length


def test_the_folder_is_private_and_deleted():
    folder = UploadFolder()
    assert folder.path.stat().st_mode & 0o077 == 0
    assert folder.new_path() != folder.new_path()
    folder.close()
    assert not folder.path.exists()


def test_wrong_forms_are_problems(client):
    def kind(**request):
        answer = client.post("/v1/predict", **request)
        return answer.status_code, answer.json()["type"].removeprefix("/problems/")

    assert kind(content=b"x") == (400, "invalid-form")
    assert kind(files={"file": b""}) == (422, "unreadable-video")
    assert kind(files={"other": b"x"}) == (400, "invalid-form")
    assert kind(files={"file": b"x"}, data={"top": "x" * (MAX_VALUE_BYTES + 1)}) == (400, "invalid-form")
    many = {f"f{number}": (None, b"x") for number in range(100)}
    assert kind(files=many) == (400, "invalid-form")
    headers = {"content-type": "multipart/form-data; boundary=b"}
    assert kind(content=b"--b\r\n", headers=headers) == (400, "invalid-form")


def test_only_decimal_numbers_are_sizes():
    assert stated_length(Headers({"content-length": "12"})) == 12
    for text in ("", "-1", "²", "x", "9" * 5000):
        assert stated_length(Headers({"content-length": text})) == 0
    assert stated_length(Headers({})) == 0


def test_an_upload_that_the_client_ends_is_no_failure_of_the_server(client):
    with socket.create_connection((client.base_url.host, client.base_url.port)) as connection:
        head = "POST /v1/predict HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000\r\n"
        connection.sendall(f"{head}content-type: multipart/form-data; boundary=b\r\n\r\n--b\r\n".encode())
        time.sleep(0.05)
    deadline = time.monotonic() + 10
    expected = 'requests_total{method="POST",route="/v1/predict",status="499"}'
    while expected not in client.get("/metrics").text and time.monotonic() < deadline:
        time.sleep(0.02)
    text = client.get("/metrics").text
    assert expected in text
    assert 'status="500"' not in text
