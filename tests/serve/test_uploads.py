"""Forms are received within limits, and their files are private and short-lived."""

from mmaction_lite.serve.uploads import MAX_VALUE_BYTES, UploadFolder


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
