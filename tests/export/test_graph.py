import pytest
import torch

from mmaction_lite.export.graph import ScoredFrames, example_frames, exportable_graph
from mmaction_lite.tasks.multi_label import MultiLabel
from mmaction_lite.tasks.verb_noun import VerbNoun
from tests.exports import carded, small_protocol


def test_normalization_and_probabilities_are_those_of_the_card():
    model = carded("tsm_r10", small_protocol(), task=MultiLabel())
    frames = example_frames((4, 20, 28, 3), 3)
    with torch.no_grad():
        probabilities, logits = exportable_graph(model)(frames)
        expected = model(model.card.test.normalize(frames))
    torch.testing.assert_close(logits, expected)
    torch.testing.assert_close(probabilities, expected.sigmoid())


def test_verbs_and_nouns_have_probabilities_of_their_own():
    classes = ("verb: open", "verb: close", "noun: door", "noun: box", "noun: bag")
    model = carded("tsn_r10", small_protocol(), task=VerbNoun(), classes=classes)
    with torch.no_grad():
        probabilities, _ = exportable_graph(model)(example_frames((4, 20, 28, 3), 2))
    torch.testing.assert_close(probabilities[:, :2].sum(1), torch.ones(2))
    torch.testing.assert_close(probabilities[:, 2:].sum(1), torch.ones(2))


def test_windows_are_averaged_as_the_protocol_does():
    model = carded("slowonly_r50", small_protocol(size=(64, 96), window=1), width=8)
    graph = ScoredFrames(model, model.card.test, model.card.task)
    with torch.no_grad():
        probabilities, logits = graph(example_frames((4, 64, 96, 3), 1))
    assert logits.shape == (1, 6, 2)
    torch.testing.assert_close(probabilities, logits.softmax(2).mean(1))


def test_the_model_stays_unchanged():
    model = carded("tsm_r10", small_protocol())
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    exportable_graph(model, torch.float16)
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_example_frames_move_and_differ():
    frames = example_frames((4, 20, 28, 3), 4)
    assert frames.shape == (4, 4, 20, 28, 3)
    assert frames.dtype == torch.uint8
    assert frames[2].max() == 0
    assert (frames[0, 0] != frames[0, 1]).any()
    assert torch.equal(frames[0], frames[3])
    with pytest.raises(ValueError):
        example_frames((4, 20, 28), 1)  # pyright: ignore[reportArgumentType]
