import pytest
from ml_collections import ConfigDict

from reid_jax.runs import stopping


def choose(*agreements, patience=2, min_rise=0.01):
    return stopping.label_free_choice(agreements, patience=patience, min_rise=min_rise)


def test_goes_on_while_the_agreement_rises():
    assert choose(None) == (0, False)
    assert choose(None, 0.5, 0.6) == (2, False)


def test_stops_after_patience_iterations_without_a_rise():
    assert choose(None, 0.5, 0.7, 0.69) == (2, False)
    assert choose(None, 0.5, 0.7, 0.69, 0.705) == (2, True)  # 0.705 is no rise of 0.01
    assert choose(None, 0.5, 0.7, 0.69, 0.72) == (4, False)


def test_errors():
    with pytest.raises(ValueError, match="at least one iteration"):
        choose()
    with pytest.raises(ValueError, match="patience >= 1"):
        choose(None, patience=0)


def test_a_signal_is_saturated_when_it_moves_no_more():
    signal = [0.4, 0.2, 0.3, 0.35, 0.36, 0.355, 0.36]
    options = {"patience": 2, "tolerance": 0.02}
    found = [stopping.first_saturated(signal[:n], **options) for n in range(len(signal) + 1)]
    assert found == [None] * 6 + [5, 5]
    assert stopping.first_saturated([*signal, 0.9], **options) == 5  # the first time counts
    with pytest.raises(ValueError, match="patience must"):
        stopping.first_saturated(signal, patience=0, tolerance=0.02)


def test_the_iteration_at_which_the_share_selected_is_saturated_is_chosen():
    stop = ConfigDict({"signal": "selected", "patience": 2, "min_rise": 0.02})

    def choose_of(shares):
        history = [{"iteration": i} | ({"selected": share} if i else {}) for i, share in enumerate([None, *shares])]
        return stopping.kept_without_labels(history, stop)

    assert choose_of([0.4, 0.5]) == (2, False)
    assert choose_of([0.4, 0.5, 0.51, 0.5]) == (4, True)
    assert choose_of([0.4, 0.5, 0.51, 0.5, 0.7]) == (4, True)
    # Where everything is selected the share says nothing.
    assert choose_of([1.0, 1.0, 1.0, 1.0]) == (4, False)


@pytest.mark.parametrize(
    "recognition,expected",
    [
        ([0.9], (0, False)),
        ([0.9, 0.85, 0.95], (2, False)),  # good enough
        ([0.9, 0.85, 0.8], (1, False)),  # below 90% of the start's
        ([0.9, 0.5, 0.3], (0, True)),  # the start itself, and no use to go on
        ([0.1, 0.05, 0.2], (2, False)),
    ],
)
def test_the_last_model_that_knows_its_images_again(recognition, expected):
    assert stopping.last_recognized(recognition, patience=2) == expected


def test_the_start_is_kept_where_all_training_collapsed():
    stop = ConfigDict({"when": "auto", "signal": "last", "patience": 5, "min_rise": 0.0})
    history = [{"recognition": value} for value in (0.9, 0.5, 0.4)]
    assert stopping.best_iteration(history, stop) == 0 and not stopping.stops_now(history, stop, has_scores=False)
    history = [{}, {"recognition": 0.1}, {"recognition": 0.1}]  # not measured of the start: the last
    assert stopping.best_iteration(history, stop) == 2
    with pytest.raises(ValueError, match="patience"):
        stopping.last_recognized([0.5], patience=0)
