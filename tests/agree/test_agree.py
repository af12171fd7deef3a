"""A model directory of mp2's own is one of Hugging Face's: the same tokens, the same logits."""
import json
import random
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertForMaskedLM, BertModel, BertTokenizer

from conftest import TOP, mp2, mp2_json

TOLERANCE = 1e-4
SENTENCES = [
    "早饭比昨天好。",
    "The lamp was LATE again, 下次再说。",
    "unaffable caf\u00e9 na\u00efve \u00c5ngstr\u00f6m",  # pieces, accents
    "2026 年的书只剩 3 个了（大家都这么说）。",
    "a-b_c@d.e  \u3000 tab\tend \u200b\ufeff x",  # punctuation, every kind of blank
    "𠀀龘 unknown ☃",
]


def ids_of(model, text):
    return [token["id"] for token in
            mp2_json("inspect", "tokens", "--model", model, "--text", text)["tokens"]]


def sequences(vocab, longest):
    """Ids of several lengths, the shortest and the longest among them."""
    draw = random.Random(11)
    return [[draw.randrange(vocab) for _ in range(n)] for n in (1, 2, 7, 31, longest)]


def masked_logits(model, ids):
    """mp2's, then transformers'."""
    ours = mp2_json("inspect", "mlm", "--model", model, "--ids", ",".join(map(str, ids)))["logits"]
    network = BertForMaskedLM.from_pretrained(model).eval()
    with torch.no_grad():
        theirs = network(input_ids=torch.tensor([ids])).logits[0]
    return torch.tensor(ours), theirs


def furthest(ours, theirs):
    assert ours.shape == theirs.shape
    return float((ours - theirs).abs().max())


def test_every_tensor_is_taken(made):
    _, found = BertForMaskedLM.from_pretrained(made, output_loading_info=True)
    assert not found["missing_keys"] and not found["unexpected_keys"], found
    assert not found["mismatched_keys"] and not found["error_msgs"], found


def test_masked_logits_agree(made):
    config = json.loads((made / "config.json").read_text(encoding="utf-8"))
    for ids in sequences(config["vocab_size"], config["max_position_embeddings"]):
        ours, theirs = masked_logits(made, ids)
        assert ours.shape == (len(ids), config["vocab_size"])
        assert ours.std() > 0.1  # not all alike: it has learned something
        assert furthest(ours, theirs) <= TOLERANCE


def test_the_best_tokens_agree(made):
    ids = [2] + ids_of(made, SENTENCES[0]) + [3]
    shown = mp2_json("inspect", "mlm", "--model", made, "--ids", ",".join(map(str, ids)), "--top", 3)
    _, theirs = masked_logits(made, ids)
    for position, top in zip(theirs, shown["top"]):
        assert [token["logit"] for token in top] == pytest.approx(
            torch.topk(position, 3).values.tolist(), abs=TOLERANCE)


@pytest.mark.parametrize("tensor", ["cls.predictions.bias", "cls.predictions.transform.dense.weight",
                                    "bert.encoder.layer.1.output.dense.weight"])
def test_a_moved_weight_is_seen(made, tmp_path, tensor):
    """One value moved on one side only: the comparison above would fail."""
    other = tmp_path / "moved"
    shutil.copytree(made, other)
    weights = load_file(other / "model.safetensors")
    weights[tensor].view(-1)[5] += 0.5
    save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
    ids = [2, 5, 17, 40, 3]
    ours, theirs = masked_logits(made, ids)[0], masked_logits(other, ids)[1]
    assert furthest(ours, theirs) > 100 * TOLERANCE
    assert furthest(*masked_logits(other, ids)) <= TOLERANCE


def test_tokens_agree(made):
    tokenizer = BertTokenizer.from_pretrained(made)
    for text in SENTENCES:
        theirs = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert ids_of(made, text) == theirs, text


def test_saved_again_by_transformers(made, tmp_path):
    """The way back: what save_pretrained writes, in PyTorch's form too, mp2 reads to the same bits."""
    ids = [2, 9, 33, 120, 7, 3]
    ours, _ = masked_logits(made, ids)
    for safe in (True, False):
        again = tmp_path / str(safe)
        BertForMaskedLM.from_pretrained(made).save_pretrained(again, safe_serialization=safe)
        assert torch.equal(masked_logits(again, ids)[0], ours)


def test_the_embedded_backbone_is_a_bert(tmp_path):
    """`mp2 convert model` of the embedded model: every tensor is taken; the last hidden states agree, seen
    through the bank's head (start and end logits, no prompt)."""
    to = tmp_path / "small-zh"
    mp2("convert", "model", TOP / "engine" / "models" / "small-zh", to, "--dtype", "F32")
    network, found = BertModel.from_pretrained(to, add_pooling_layer=False, output_loading_info=True)
    assert not found["missing_keys"] and not found["mismatched_keys"], found
    described = mp2_json("inspect", "model", "--model", to)
    assert sum(p.numel() for p in network.parameters()) == described["parameters"]
    bank = load_file(to / "shallow.bank.safetensors")
    kind = described["banks"][0]["token_type"]
    for ids in sequences(described["vocab"], 200):
        with torch.no_grad():
            hidden = network(input_ids=torch.tensor([ids]),
                             token_type_ids=torch.full((1, len(ids)), kind)).last_hidden_state[0]
        ours = mp2_json("inspect", "logits", "--model", to, "--bank", to / "shallow.bank.safetensors",
                        "--ids", ",".join(map(str, ids)))
        theirs = hidden @ bank["lmhead"].float().T + bank["qa_bias"].float()
        assert furthest(torch.tensor([ours["start"], ours["end"]]).T, theirs) <= TOLERANCE
