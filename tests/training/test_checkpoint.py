import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch.nn.utils.rnn import pack_sequence

from caption_utils.data.vocab import Vocabulary
from caption_utils.errors import InputError
from caption_utils.training import checkpoint
from caption_utils.training.checkpoint import (
    CONFIG,
    ENCODER_WEIGHTS,
    VOCAB,
    WEIGHTS,
    Model,
    load_model,
    name_digest,
    read_json,
    save_model,
    save_tensors,
)


@pytest.fixture
def model(make_decoder, vocab):
    return Model(make_decoder(), vocab, "fake", "f4ce", {"seed": 1, "data": "tiny"})


@pytest.fixture
def folder(model, tmp_path):
    save_model(tmp_path / "a" / "model", model)
    return tmp_path / "a" / "model"


def test_a_model_folder_holds_three_files(folder):
    assert sorted(path.name for path in folder.iterdir()) == [CONFIG, WEIGHTS, VOCAB]


def test_a_model_comes_back_as_it_was(make_decoder, make_batches, vocab, tmp_path, variant):
    decoder = make_decoder(variant)
    save_model(tmp_path, Model(decoder, vocab, "fake", "f4ce", {"seed": 1}))
    again = load_model(tmp_path)
    assert again.decoder.config == decoder.config
    assert (again.vocab.words, again.encoder, again.fingerprint) == (vocab.words, "fake", "f4ce")
    assert again.training == {"seed": 1}
    assert not again.decoder.training
    stored = again.decoder.state_dict()
    for name, tensor in decoder.state_dict().items():
        assert torch.equal(stored[name], tensor.half().float()), name
    (batch,) = make_batches().in_order()
    for one, other in zip(
        again.decoder(batch.features, batch.tokens, batch.owner),
        decoder(batch.features, batch.tokens, batch.owner),
        strict=True,
    ):
        torch.testing.assert_close(one, other, atol=5e-3, rtol=0)


def test_weights_are_stored_once_and_in_half_precision(make_decoder, vocab, tmp_path):
    save_model(tmp_path, Model(make_decoder("tied"), vocab, "fake", "f4ce"))
    weights = load_file(tmp_path / WEIGHTS)
    assert "output.weight" not in weights
    assert {tensor.dtype for tensor in weights.values()} == {torch.float16}
    decoder = load_model(tmp_path).decoder
    assert decoder.output.weight is decoder.embedding.weight


def change_config(folder, change):
    config = json.loads((folder / CONFIG).read_text())
    change(config)
    (folder / CONFIG).write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["decoder"].update(hidden_dim=9), r"safetensors: does not fit .*config\.json \(size mismatch"),
        (lambda c: c["decoder"].update(attention="luong"), r"model\.safetensors: does not fit .*config\.json"),
        (lambda c: c["decoder"].update(attention="self"), r"config\.json: attention 'self' is unknown; choose one of"),
        (lambda c: c["decoder"].update(vocab_size=7), r"vocab\.json: \d+ words, but the model was trained with 7; "),
        (lambda c: c["decoder"].update(depth=2), r"config\.json: setting missing or unknown \(.*depth.*restore"),
        (lambda c: c["decoder"].update(hidden_dim="8"), r"config\.json: hidden_dim='8' is of the wrong kind"),
        (lambda c: c["decoder"].update(hidden_dim=-8), r"config\.json: hidden_dim=-8 is out of range"),
        (lambda c: c["decoder"].update(dropout=5), r"config\.json: dropout=5 is out of range"),
        (lambda c: c.update(decoder=[]), r"config\.json: setting missing or unknown"),
        (lambda c: c.update(encoder="fake"), r"config\.json: setting missing or unknown"),
        (lambda c: c.update(trained_on="abc"), r"config\.json: setting missing or unknown"),
        (lambda c: c.update(training="none"), r"config\.json: setting missing or unknown"),
        (lambda c: c.pop("encoder"), r"config\.json: setting missing or unknown \('encoder'\)"),
    ],
)
def test_parts_that_do_not_fit_are_named(folder, change, message):
    change_config(folder, change)
    with pytest.raises(InputError, match=message) as caught:
        load_model(folder)
    assert "\n" not in str(caught.value)


def test_another_model_s_vocabulary_is_refused(folder):
    Vocabulary.build(["a dog"], min_count=1).save(folder / VOCAB)
    with pytest.raises(InputError, match=r"vocab\.json: 6 words, but the model was trained with \d\d; restore"):
        load_model(folder)


def test_as_many_other_words_are_refused(folder, vocab):
    Vocabulary({f"{word}x": count for word, count in vocab.counts.items()}, 1).save(folder / VOCAB)
    with pytest.raises(InputError, match=r"vocab\.json: other words than the model's; restore the vocabulary that"):
        load_model(folder)


def test_a_model_knows_the_names_of_its_training_photos(model, tmp_path):
    photos = ["a.jpg", "sub/ä.jpg", *(f"{i}.jpg" for i in range(2000))]
    save_model(tmp_path, replace(model, trained_on=frozenset(map(name_digest, photos))))
    again = load_model(tmp_path)
    assert all(map(again.saw, photos)) and again.saw("sub/a\u0308.jpg")
    assert not any(again.saw(f"{i}.png") for i in range(2000)) and not again.saw("ä.jpg")
    assert again.saw("photos/all/a.jpg") and not again.saw("photos/aa.jpg")  # the table may name the folder, too
    assert (tmp_path / CONFIG).stat().st_size < 20_000


def test_a_folder_of_an_older_version_knows_neither_words_nor_photos(folder):
    change_config(folder, lambda config: [config.pop(name) for name in ("vocabulary", "trained_on")])
    assert not load_model(folder).saw("a.jpg")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (CONFIG, "config.json: not found; point to a model folder"),
        (VOCAB, "vocab.json: no vocabulary here"),
        (WEIGHTS, r"model\.safetensors: no weights here; train a model into this folder first"),
    ],
)
def test_a_missing_file_is_named(folder, name, message):
    (folder / name).unlink()
    with pytest.raises(InputError, match=message):
        load_model(folder)
    (folder / name).mkdir()
    with pytest.raises(InputError, match=name):
        load_model(folder)


def test_a_missing_folder_and_a_file_in_its_place(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "none", tmp_path / "file"):
        with pytest.raises(InputError, match="config.json: not found; point to a model folder that training wrote"):
            load_model(path)


@pytest.mark.parametrize("name", [CONFIG, VOCAB, WEIGHTS])
@pytest.mark.parametrize("keep", [0, 1, 0.5, 0.99])
def test_a_truncated_file_is_named(folder, name, keep):
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[: keep if keep == 1 else int(len(data) * keep)])
    with pytest.raises(InputError, match=rf"{name}: .*(restore|train)") as caught:
        load_model(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content", [b"[1]", b'"a"', b"\xff", b"{'a': 1}", b'{"a":' * 100_000, b'{"a": ' + b"1" * 5000 + b"}"]
)
def test_what_is_no_json_object_is_named(tmp_path, content):
    (tmp_path / CONFIG).write_bytes(content)
    with pytest.raises(InputError, match=r"config\.json: .*; restore the file or train again"):
        read_json(tmp_path / CONFIG)


@pytest.mark.parametrize("name", [CONFIG, VOCAB, WEIGHTS])
def test_a_link_out_of_the_folder_is_refused(folder, name):
    shutil.move(folder / name, folder.parent / name)
    (folder / name).symlink_to(folder.parent / name)
    with pytest.raises(InputError, match=f"^{folder / name}: leads outside its model folder; copy the file into it$"):
        load_model(folder)


@pytest.mark.parametrize("name", [CONFIG, VOCAB, WEIGHTS])
def test_a_file_that_may_not_be_read_is_named(folder, monkeypatch, name):
    """As ``os.access`` tells it, since root may read all."""
    monkeypatch.setattr("os.access", lambda path, mode: Path(path).name != name)
    with pytest.raises(InputError, match=f"^{folder / name}: may not be read; change its permissions$"):
        load_model(folder)


@pytest.mark.parametrize("old", [True, False], ids=["pickle", "zip of pickles"])
def test_a_pickle_is_no_weights(folder, tmp_path, old):
    torch.save({"a": torch.ones(2)}, folder / WEIGHTS, _use_new_zipfile_serialization=not old)
    with pytest.raises(InputError, match=f"{WEIGHTS}: damaged .*; restore the file or train again"):
        load_model(folder)
    shutil.copy(folder / WEIGHTS, tmp_path / "model.pt")
    for path in (tmp_path, tmp_path / "model.pt"):
        with pytest.raises(InputError, match=r"config\.json: not found; point to a model folder that training wrote"):
            load_model(path)


def test_a_linked_folder_is_welcome(folder, tmp_path):
    (tmp_path / "link").symlink_to(folder)
    assert load_model(tmp_path / "link").encoder == "fake"


def test_tied_weights_without_an_embedding_are_damaged(make_decoder, vocab, tmp_path):
    save_model(tmp_path, Model(make_decoder("tied"), vocab, "fake", "f4ce"))
    weights = load_file(tmp_path / WEIGHTS)
    weights.pop("embedding.weight")
    save_file(weights, tmp_path / WEIGHTS)
    with pytest.raises(InputError, match=r"model\.safetensors: damaged"):
        load_model(tmp_path)


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), SafetensorError("I/O error: No space left")])
def test_a_failed_write_keeps_the_last_good_file(tmp_path, monkeypatch, error):
    path = tmp_path / "x.safetensors"
    save_tensors(path, {"a": torch.ones(2)})

    def fail(tensors, file, metadata):
        file.write_bytes(b"half")
        raise error

    monkeypatch.setattr(checkpoint, "save_file", fail)
    with pytest.raises(InputError, match=r"x\.safetensors: cannot be written \(.*No space left.*free disk space"):
        save_tensors(path, {"a": torch.zeros(2)})
    assert torch.equal(load_file(path)["a"], torch.ones(2))
    assert list(tmp_path.iterdir()) == [path]


def test_weights_come_last(model, tmp_path, monkeypatch):
    def fail(path, tensors, metadata):
        assert {file.name for file in tmp_path.iterdir()} == {CONFIG, VOCAB}
        raise InterruptedError

    monkeypatch.setattr(checkpoint, "save_tensors", fail)
    with pytest.raises(InterruptedError):
        save_model(tmp_path, model)


@pytest.mark.parametrize("next_file", [ENCODER_WEIGHTS, WEIGHTS])
def test_a_decoder_of_one_epoch_is_not_loaded_with_the_encoder_of_another(model, tmp_path, monkeypatch, next_file):
    """A run is killed before it writes ``next_file``."""
    save_model(tmp_path, replace(model, encoder_weights={"a": torch.ones(2)}))
    assert load_model(tmp_path).fingerprint == "f4ce"
    write = checkpoint.save_tensors

    def killed(path, *rest):
        if path.name == next_file:
            raise InterruptedError
        write(path, *rest)

    monkeypatch.setattr(checkpoint, "save_tensors", killed)
    with pytest.raises(InterruptedError):
        save_model(tmp_path, replace(model, encoder_weights={"a": torch.zeros(2)}, fingerprint="0ther"))
    with pytest.raises(InputError, match=r"model.safetensors and encoder.safetensors are of two epochs; run the"):
        load_model(tmp_path)
    save_file(load_file(tmp_path / WEIGHTS), tmp_path / WEIGHTS)  # as older versions did
    assert load_model(tmp_path).fingerprint == "0ther"


@pytest.mark.parametrize("name", ["bahdanau", "luong", "luong-feeding"])
def test_a_model_folder_of_version_0_1_computes_what_it_did(name):
    folder = Path(__file__).parent / "version_0_1"
    expected = json.loads((folder / "expected.json").read_text())[name]
    decoder = load_model(folder / name).decoder
    features = torch.sin(torch.arange(48.0)).view(2, 4, 6)
    tokens = pack_sequence([torch.tensor([1, 4, 5, 6]), torch.tensor([1, 7])])
    logits, alphas = decoder(features, tokens, torch.tensor([1, 0]))
    torch.testing.assert_close(logits, torch.tensor(expected["logits"]), atol=2e-5, rtol=0)
    torch.testing.assert_close(alphas, torch.tensor(expected["alphas"]), atol=2e-5, rtol=0)


@pytest.fixture
def ensemble(make_decoder, vocab, tmp_path):
    """A folder that names two model folders beside it."""
    for name, variant, photo in (("one", "general", "a.jpg"), ("two", "deep", "b.jpg")):
        training, seen = {"split": "first6k"}, frozenset([name_digest(photo)])
        save_model(tmp_path / name, Model(make_decoder(variant), vocab, "fake", "f4ce", training, seen))
    checkpoint.write_json(tmp_path / "both" / CONFIG, {"models": ["one", "two"]})
    return tmp_path / "both"


def test_an_ensemble_is_its_models_together(ensemble, make_batches):
    (batch,) = make_batches().in_order()
    together, *models = (load_model(ensemble.parent / name) for name in ("both", "one", "two"))
    logits, _ = together.decoder(batch.features, batch.tokens, batch.owner)
    apart = [model.decoder(batch.features, batch.tokens, batch.owner)[0].softmax(dim=1) for model in models]
    torch.testing.assert_close(logits.exp(), sum(apart) / 2)
    assert not together.decoder.training
    assert together.training == {"split": "first6k", "models": ["one", "two"]}
    assert together.saw("a.jpg") and together.saw("b.jpg") and not together.saw("c.jpg")


def test_an_ensemble_is_not_saved_as_a_model(ensemble, tmp_path):
    with pytest.raises(InputError, match=r"an ensemble has no weights of its own; write a config\.json that names"):
        save_model(tmp_path / "new", load_model(ensemble))
    assert not (tmp_path / "new").exists()


def test_decoder_and_vocabulary_have_the_same_size(make_decoder, vocab, tmp_path):
    with pytest.raises(InputError, match=f"^a decoder for 7 words, but a vocabulary of {len(vocab)}; build it with"):
        save_model(tmp_path / "new", Model(make_decoder(vocab_size=7), vocab, "fake", "f4ce"))
    assert not (tmp_path / "new").exists()


def test_an_ensemble_is_found_from_within(ensemble, monkeypatch):
    monkeypatch.chdir(ensemble)
    assert load_model(".").training["models"] == ["one", "two"]


def test_an_ensemble_s_digest_is_that_of_all_weights(ensemble):
    before = checkpoint.folder_digest(ensemble)
    assert before != checkpoint.folder_digest(ensemble.parent / "one")
    shutil.copyfile(ensemble.parent / "one" / WEIGHTS, ensemble.parent / "two" / WEIGHTS)
    assert checkpoint.folder_digest(ensemble) != before


@pytest.mark.parametrize("names", ["one", ["../one"], ["one/deep"], [1], [""], [".."], [], "", None])
def test_models_of_an_ensemble_lie_beside_it(ensemble, names):
    checkpoint.write_json(ensemble / CONFIG, {"models": names})
    with pytest.raises(InputError, match="config.json: models should be a list of names of model folders beside"):
        load_model(ensemble)


def test_an_ensemble_without_one_of_its_models_is_one_line(ensemble):
    shutil.rmtree(ensemble.parent / "two")
    with pytest.raises(InputError, match="two.config.json: not found"):
        load_model(ensemble)


def test_an_ensemble_is_not_part_of_another(ensemble):
    checkpoint.write_json(ensemble.parent / "three" / CONFIG, {"models": ["one", "both"]})
    with pytest.raises(InputError, match="both: an ensemble, which cannot be part of another; name its models there"):
        load_model(ensemble.parent / "three")


def test_a_config_may_begin_with_a_byte_order_mark(ensemble):
    (ensemble / CONFIG).write_text((ensemble / CONFIG).read_text(), encoding="utf-8-sig")
    assert load_model(ensemble).training["models"] == ["one", "two"]


def test_models_of_an_ensemble_have_the_same_words(ensemble, make_decoder):
    other = Vocabulary.build(["another word"], 1)
    save_model(ensemble.parent / "two", Model(make_decoder("deep", vocab_size=len(other)), other, "fake", "f4ce"))
    with pytest.raises(InputError, match="config.json: two has other words or another encoder than the first model"):
        load_model(ensemble)
