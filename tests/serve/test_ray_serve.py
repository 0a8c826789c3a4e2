"""deploy/ray_serve.py: two replicas on a local Ray give the answers of `predict`."""

import json
import os
import subprocess
import sys

import pytest

from mmaction_lite.inference.predict import predict
from tests.docs.pages import ROOT

PORT = "18793"
CODE = f"""
import json, sys
import httpx, ray
from ray import serve
from deploy.ray_serve import application
ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
serve.start(http_options={{"host": "127.0.0.1", "port": {PORT}}})
serve.run(application)
(replicas,) = (each.replica_states for each in serve.status().applications["default"].deployments.values())
with open(sys.argv[1], "rb") as file:
    body = file.read()
answers = [
    httpx.post("http://127.0.0.1:{PORT}/v1/predict", files={{"file": body}}, timeout=60).json()["predictions"]
    for _ in range(6)
]
print(json.dumps({{"answers": answers, "replicas": sum(replicas.values())}}))
serve.shutdown()
"""


@pytest.mark.slow
def test_replicas_on_ray_answer_as_predict_does(weights, clip):
    pytest.importorskip("ray")
    pytest.importorskip("grpc", reason="needs ray[serve]")
    environment = os.environ | {"MMACTION_LITE_WEIGHTS": str(weights), "PYTHONPATH": str(ROOT)}
    environment["RAY_AUTH_MODE"] = "disabled"
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(clip)], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(next(line for line in done.stdout.splitlines() if line.startswith('{"answers"')))
    assert found["replicas"] == 2
    expected = predict(str(weights), clip, "cpu")
    for answer in found["answers"]:
        assert [each["class"] for each in answer] == list(expected.labels)
        probabilities = [each["probability"] for each in answer]
        assert probabilities == pytest.approx(expected.scores.tolist(), abs=1e-6)
