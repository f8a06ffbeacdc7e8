"""The sentence of a mistake, and what it keeps on its way."""

from __future__ import annotations

import pickle

from inbatch.errors import ConfigError, did_you_mean


def test_the_sentence_has_key_value_problem_and_fix() -> None:
    error = ConfigError("global_batch_size", "does not divide over 4 ranks", "set 8", value=10)
    assert str(error) == "global_batch_size=10 does not divide over 4 ranks: set 8"


def test_a_value_that_says_nothing_is_left_out() -> None:
    assert str(ConfigError("data.train", "is not set", "set data.train=FILE")).startswith(
        "data.train is not set"
    )
    assert str(ConfigError("name", "is empty", "set one", value=None)) == (
        "name=null is empty: set one"
    )


def test_it_comes_whole_out_of_a_worker() -> None:
    error = pickle.loads(pickle.dumps(ConfigError("a.b", "is odd", "set 2", value=[1])))
    assert (error.key, error.problem, error.fix, error.value) == ("a.b", "is odd", "set 2", [1])
    assert str(pickle.loads(pickle.dumps(ConfigError("a", "is odd", "set 2")))) == "a is odd: set 2"


def test_a_notebook_shows_the_sentence_alone() -> None:
    error = ConfigError("loss", "is no loss", "choose one of gist, cosent")
    assert error._render_traceback_() == ["error: loss is no loss: choose one of gist, cosent"]


def test_it_can_be_told_under_the_key_that_was_written() -> None:
    error = ConfigError("data.train.train.path", "does not exist", "name a file", value="a.csv")
    assert str(error.under("data.train")) == "data.train='a.csv' does not exist: name a file"


def test_a_near_word_is_asked_for() -> None:
    assert did_you_mean("wam_up", ["warmup", "decay"]) == "did you mean 'warmup'?"
    assert did_you_mean("other", ["warmup", "decay"]) == ""
