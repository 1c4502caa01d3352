import logging
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from reid_jax import errors
from reid_jax.runs import checkpoints
from reid_jax.training import optimizers, train_step


def make_state(mesh, *, step, width=4):
    variables = {
        "params": {"backbone": {"kernel": jnp.full((3, width), 0.1 * step)}, "classifier": {"bias": jnp.ones(2)}},
        "batch_stats": {"backbone": {"mean": jnp.full(3, step / 7)}},
    }
    optimizer = optimizers.make_optimizer("sgd", 0.1, weight_decay=0.0)
    return train_step.init_train_state(variables, optimizer, mesh)._replace(step=jnp.int32(step))


def equal(a, b):
    return jax.tree.structure(a) == jax.tree.structure(b) and all(
        np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b))
    )


def test_restores_the_newest_exactly(tmp_path, meshes):
    store = checkpoints.Checkpoints(tmp_path)
    assert store.restore_last(make_state(meshes[0], step=0)) is None
    for step in (5, 10, 15):
        store.save_last(make_state(meshes[0], step=step), {"iteration": step, "losses": [0.1, 1 / 3]})
    store.close()
    for mesh in meshes:  # on any number of devices
        reopened = checkpoints.Checkpoints(tmp_path)
        state, progress = reopened.restore_last(make_state(mesh, step=0))
        assert equal(state, make_state(mesh, step=15)) and progress == {"iteration": 15, "losses": [0.1, 1 / 3]}
        assert state.params["backbone"]["kernel"].sharding.is_equivalent_to(
            make_state(mesh, step=0).params["backbone"]["kernel"].sharding, 2
        )
        reopened.close()
    assert sorted(path.name for path in (tmp_path / "checkpoints/last").iterdir()) == ["10", "15"]


def test_an_average_and_what_was_fitted_come_back(tmp_path, meshes):
    """What is trained, its average, which is the model to use, and the post-processing of its embeddings."""
    plain = make_state(meshes[0], step=3)
    fitted = {"mean": jnp.float32([1, 2]), "cameras": jnp.int32([0, 4])}
    state = plain._replace(average=jax.tree.map(lambda x: x / 2, plain.trained), fitted=fitted)
    store = checkpoints.Checkpoints(tmp_path)
    store.save_last(state, {})
    store.save_best(state, {})
    found, _ = store.restore_last(jax.tree.map(jnp.zeros_like, state))
    store.close()
    assert equal(found, state) and not equal(found.variables, found.trained)
    assert equal(checkpoints.restore_variables(tmp_path, plain.variables), state.average)
    kept = checkpoints.restore_fitted(tmp_path)
    assert kept.keys() == fitted.keys() and all(np.array_equal(kept[name], fitted[name]) for name in fitted)
    plain_store = checkpoints.Checkpoints(tmp_path / "plain")
    plain_store.save_best(plain, {})
    plain_store.close()
    assert checkpoints.restore_fitted(tmp_path / "plain") == {}


def test_saving_a_step_again_replaces_it(tmp_path, meshes):
    store = checkpoints.Checkpoints(tmp_path)
    store.save_best(make_state(meshes[0], step=5), {"try": 1})
    changed = make_state(meshes[0], step=5)
    changed = changed._replace(batch_stats=jax.tree.map(lambda x: x + 1, changed.batch_stats))
    store.save_best(changed, {"try": 2})
    store.close()
    found = checkpoints.restore_variables(tmp_path, changed.variables)
    assert equal(found, changed.variables)
    assert len(list((tmp_path / "checkpoints/best").iterdir())) == 1


def test_saving_a_step_again_deletes_nothing_before_it_is_whole(tmp_path, meshes, monkeypatch):
    store = checkpoints.Checkpoints(tmp_path)
    store.save_best(make_state(meshes[0], step=5), {})
    store.save_last(make_state(meshes[0], step=5), {"try": 1})

    def killed(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ocp.CheckpointManager, "save", killed)
        for save in (store.save_best, store.save_last):
            with pytest.raises(KeyboardInterrupt):
                save(make_state(meshes[0], step=5), {"try": 2})
    store.close()
    like = make_state(meshes[0], step=5)
    assert equal(checkpoints.restore_variables(tmp_path, like.variables), like.variables)
    store = checkpoints.Checkpoints(tmp_path)
    assert store.restore_last(like)[1] == {"try": 1}
    store.save_last(like, {"try": 2})
    assert store.restore_last(like)[1] == {"try": 2}
    store.save_last(make_state(meshes[0], step=6), {"try": 3})  # 6 is taken
    state, progress = store.restore_last(like)
    assert int(state.step) == 6 and progress == {"try": 3}
    store.close()


def damage(folder, what):
    """Takes away what a kill while deleting, or a disk, may take away."""
    if what in ("variables", "optimizer", "progress"):
        shutil.rmtree(folder / what)
    elif what == "half a file":
        (path,) = (folder / "variables/d").iterdir()
        path.write_bytes(path.read_bytes()[:-100])
    else:
        (folder / what).unlink()


@pytest.mark.parametrize(
    "what",
    [
        "variables",
        "optimizer",
        "progress",
        "half a file",
        "variables/_METADATA",
        "optimizer/manifest.ocdbt",
        "progress/metadata",
    ],
)
def test_goes_back_to_the_newest_whole_one(tmp_path, meshes, capfd, what):
    store = checkpoints.Checkpoints(tmp_path)
    states = {step: make_state(meshes[0], step=step) for step in (5, 10)}
    for step, state in states.items():
        store.save_last(state, {"iteration": step})
    store.close()
    last = tmp_path / "checkpoints/last"
    damage(last / "10", what)
    store = checkpoints.Checkpoints(tmp_path)
    assert store.has_last()
    state, progress = store.restore_last(make_state(meshes[0], step=0))
    if what == "variables/_METADATA":  # only needed where the shapes are not given
        assert equal(state, states[10])
    else:
        assert equal(state, states[5]) and progress == {"iteration": 5}
        assert f"the newest checkpoint in {last} is damaged; going on from 5" in capfd.readouterr().err
    store.close()
    if what.startswith(("variables", "half")):
        assert equal(checkpoints.restore_variables(last, state.variables), states[5].variables)
    damage(last / "5", what)
    if what != "variables/_METADATA":
        store = checkpoints.Checkpoints(tmp_path)
        with pytest.raises(errors.UserError, match="no checkpoint in .*last' can be read: "):
            store.restore_last(make_state(meshes[0], step=0))
        store.close()


def test_reading_a_model_warns_of_nothing(tmp_path, meshes, caplog):
    state = make_state(meshes[0], step=5)
    store = checkpoints.Checkpoints(tmp_path)
    store.save_best(state, {})
    store.close()
    with caplog.at_level(logging.WARNING):
        logging.getLogger("absl").addHandler(caplog.handler)
        try:
            checkpoints.restore_variables(tmp_path, state.variables)
        finally:
            logging.getLogger("absl").removeHandler(caplog.handler)
    assert caplog.messages == []


def test_reads_only_the_asked_part_of_the_best_model(tmp_path, meshes):
    state = make_state(meshes[1], step=5)
    store = checkpoints.Checkpoints(tmp_path)
    store.save_best(state, {})
    store.close()
    like = {"params": {"backbone": state.params["backbone"]}, "batch_stats": state.batch_stats}
    for name in (tmp_path, tmp_path / "checkpoints/best"):
        assert equal(checkpoints.restore_variables(name, jax.eval_shape(lambda: like)), like)
    with pytest.raises(errors.UserError, match=r"params/backbone/kernel is \(3, 4\) there, \(3, 5\) in this one"):
        checkpoints.restore_variables(tmp_path, make_state(meshes[0], step=0, width=5).variables)
    with pytest.raises(errors.UserError, match="params/neck is absent there"):
        checkpoints.restore_variables(tmp_path, {"params": {"neck": jnp.ones(1)}})


def test_missing_and_unfinished_checkpoints(tmp_path):
    with pytest.raises(errors.UserError, match="no checkpoint in"):
        checkpoints.restore_variables(tmp_path / "nowhere", {})
    (tmp_path / "checkpoints/best/7.orbax-checkpoint-tmp/variables").mkdir(parents=True)
    with pytest.raises(errors.UserError, match="no finished checkpoint"):
        checkpoints.restore_variables(tmp_path, {})
