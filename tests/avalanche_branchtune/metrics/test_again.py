"""An experience that was interrupted, or failed after it was trained, counts once in everything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from avalanche.core import SupervisedPlugin
from avalanche.training.plugins import EvaluationPlugin

from avalanche_branchtune import BranchTuningPlugin
from avalanche_branchtune.errors import ProbeError
from avalanche_branchtune.evaluation import KNNProbe, StreamProbe
from avalanche_branchtune.metrics import AnalysisMetric, RunRecorder, run_metrics
from avalanche_branchtune.records import load_run
from tests import supervised


class Stop(SupervisedPlugin):
    """Raise at an event of experience 1, once."""

    def __init__(self, event: str) -> None:
        super().__init__()
        self.armed = True
        setattr(self, event, self._stop)

    def _stop(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        if self.armed and strategy.experience.current_experience == 1:
            self.armed = False
            raise KeyboardInterrupt


def train(folder: Path, stop: Stop | None, *, go_on: bool = True) -> Any:
    stream = supervised.benchmark()
    test = stream.test_stream
    probe = StreamProbe(KNNProbe(k=3), stream.train_stream, test, backbone="features")
    metrics = run_metrics([probe], AnalysisMetric(test, samples=16, batch_size=8))
    evaluator = EvaluationPlugin(*metrics, loggers=[RunRecorder(folder, "a")])
    plugin = BranchTuningPlugin(verbose=False)
    plugins = [plugin] if stop is None else [plugin, stop]
    run = supervised.strategy(plugins, evaluator=evaluator)
    for experience in stream.train_stream:
        try:
            run.train(experience)
        except KeyboardInterrupt:
            if go_on:
                run.train(experience)
    return plugin


@pytest.mark.parametrize("event", ["before_training_iteration", "after_training_exp"])
def test_trained_again_it_counts_once(tmp_path: Path, event: str) -> None:
    """Also if it was finished, for an error of another plugin came after that."""
    plain = train(tmp_path / "plain", None)
    again = train(tmp_path / "again", Stop(event))
    assert [s.experience for s in again.summaries] == [s.experience for s in plain.summaries]
    assert list(again.branch_norms) == list(plain.branch_norms) == [1, 2]
    one, other = load_run(tmp_path / "plain"), load_run(tmp_path / "again")
    assert other.complete and other.finished == one.finished == 3
    for name in ("seconds", "evaluation_seconds", "stability", "branch_norms"):
        assert len(getattr(other, name)) == len(getattr(one, name)) == 3, name
    assert len(other.probes["kNN"].accuracies) == 3
    assert [sorted(s) for s in other.stability] == [sorted(s) for s in one.stability]
    assert [sorted(n) for n in other.branch_norms] == [sorted(n) for n in one.branch_norms]


def test_an_interrupted_experience_is_not_measured_as_a_finished_one(tmp_path: Path) -> None:
    stop = Stop("before_training_iteration")
    with pytest.raises(ProbeError, match=r"experience 2 is to be trained after 1 others.*again"):
        train(tmp_path, stop, go_on=False)
    run = load_run(tmp_path)
    assert not run.complete and run.finished == 1
