import pytest

from reid_jax import stopping


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
    found = [stopping.is_saturated(signal[:n], patience=2, tolerance=0.02) for n in range(1, len(signal) + 1)]
    assert found == [False, False, False, False, False, True, True]
    assert not stopping.is_saturated([0.5], patience=1, tolerance=0.02)
    with pytest.raises(ValueError, match="patience must be at least 1, got 0"):
        stopping.is_saturated(signal, patience=0, tolerance=0.02)
