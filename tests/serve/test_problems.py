"""Every error is a problem of a known type."""

from starlette.exceptions import HTTPException

from mmaction_lite.serve.problems import KINDS, MEDIA_TYPE, Problem, as_problem


def test_unknown_routes_and_methods_are_problems(client):
    for answer, kind in (
        (client.get("/v1/nothing"), "not-found"),
        (client.put("/v1/models"), "method-not-allowed"),
    ):
        assert answer.headers["content-type"] == MEDIA_TYPE
        assert answer.json()["type"] == f"/problems/{kind}"
        assert answer.json()["status"] == answer.status_code == KINDS[kind].status


def test_types_of_problems_are_described(client):
    assert client.get("/problems/busy").json()["status"] == 429
    assert client.get("/problems/none").json()["type"] == "/problems/not-found"


def test_unexpected_errors_show_no_text():
    problem = as_problem(RuntimeError("/home/me/secret"))
    assert (problem.status, str(problem)) == (500, "unexpected RuntimeError")
    assert as_problem(HTTPException(404)).to_json()["detail"] == "There is no such resource"
    assert as_problem(Problem("busy")).kind == "busy"
