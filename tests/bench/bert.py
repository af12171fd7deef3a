"""bert.py: the encoder of mp2 as its peers run it: one graph for ONNX Runtime, one module for PyTorch.

Both compute what engine/encoder.c computes (METHOD 1 and 2, shallow prompt): embeddings, LayerNorm,
the merged prompt added at positions 1..P, post-LayerNorm layers with exact GELU, the head. `check`
holds them against `mp2 inspect logits` on the embedded model, so that a race is between equals.
"""
import json
import pathlib

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

EMBEDDED = pathlib.Path(__file__).resolve().parents[2] / "engine" / "models" / "small-zh"
SHAPES = {
    "large": dict(layers=24, hidden=1024, heads=16, ffn=4096, vocab=21128, positions=512),
    "base": dict(layers=12, hidden=768, heads=12, ffn=3072, vocab=21128, positions=512),
    "embedded": dict(layers=3, hidden=128, heads=4, ffn=512, vocab=5784, positions=352),
}
EPSILON = 1e-12


def random_weights(shape, seed=1):
    """Weights in PyTorch's layout by short names; `out` x `in` for linear maps."""
    rng = np.random.default_rng(seed)
    H, F = shape["hidden"], shape["ffn"]

    def normal(*size):
        return (0.02 * rng.standard_normal(size)).astype(np.float32)

    w = {"word": normal(shape["vocab"], H), "position": normal(shape["positions"], H),
         "type": normal(H), "embed.g": np.ones(H, np.float32), "embed.b": np.zeros(H, np.float32),
         "head.w": normal(2, H), "head.b": np.zeros(2, np.float32)}
    for i in range(shape["layers"]):
        for name, rows, columns in (("q", H, H), ("k", H, H), ("v", H, H), ("o", H, H),
                                    ("up", F, H), ("down", H, F)):
            w[f"{i}.{name}.w"], w[f"{i}.{name}.b"] = normal(rows, columns), normal(rows)
        for name in ("ln1", "ln2"):
            w[f"{i}.{name}.g"] = np.ones(H, np.float32)
            w[f"{i}.{name}.b"] = np.zeros(H, np.float32)
    return w


def read_backbone(model_dir):
    """A model directory's shape and weights, without a head: (shape, w)."""
    from safetensors.numpy import load_file
    model_dir = pathlib.Path(model_dir)
    config = json.loads((model_dir / "config.json").read_text(encoding="utf-8"))
    shape = {"layers": config["num_hidden_layers"], "hidden": config["hidden_size"],
             "heads": config["num_attention_heads"], "ffn": config["intermediate_size"],
             "vocab": config["vocab_size"], "positions": config["max_position_embeddings"]}
    model = {name.removeprefix("bert."): tensor.astype(np.float32)
             for name, tensor in load_file(model_dir / "model.safetensors").items()}
    e = "embeddings."
    w = {"word": model[e + "word_embeddings.weight"],
         "position": model[e + "position_embeddings.weight"],
         "type": model[e + "token_type_embeddings.weight"][1],
         "embed.g": model[e + "LayerNorm.weight"], "embed.b": model[e + "LayerNorm.bias"]}
    places = {"q": "attention.self.query", "k": "attention.self.key", "v": "attention.self.value",
              "o": "attention.output.dense", "up": "intermediate.dense", "down": "output.dense",
              "ln1": "attention.output.LayerNorm", "ln2": "output.LayerNorm"}
    for i in range(shape["layers"]):
        for short, place in places.items():
            base = f"encoder.layer.{i}.{place}."
            w[f"{i}.{short}.{'g' if short.startswith('ln') else 'w'}"] = model[base + "weight"]
            w[f"{i}.{short}.b"] = model[base + "bias"]
    return shape, w


def embedded_weights():
    """The embedded model and the merged prompt of an all-zero route: (weights, prompt (P, H))."""
    from safetensors.numpy import load_file
    _, w = read_backbone(EMBEDDED)
    bank = {name: tensor.astype(np.float32)
            for name, tensor in load_file(EMBEDDED / "shallow.bank.safetensors").items()}
    w["head.w"], w["head.b"] = bank["lmhead"].reshape(2, -1), bank["qa_bias"].reshape(2)
    z, A = bank["z"].reshape(-1, bank["z"].shape[-1]), bank["A"].reshape(bank["z"].shape[-1], -1)
    return w, (z.mean(axis=0) @ A).reshape(-1, w["word"].shape[1])


# ---- ONNX -------------------------------------------------------------------------------------------


class Graph:
    def __init__(self):
        self.nodes, self.constants = [], []

    def constant(self, name, values):
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def node(self, op, inputs, domain="", outputs=1, **attributes):
        names = [f"t{len(self.nodes)}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(op, inputs, names, domain=domain, **attributes))
        return names[0] if outputs == 1 else names


def _layer_fused(g, w, i, x, lengths, heads):
    """One layer in ONNX Runtime's own operators: what its transformer optimiser makes of a BERT."""
    ms = "com.microsoft"
    qkv = np.concatenate([w[f"{i}.{n}.w"].T for n in "qkv"], axis=1)
    bias = np.concatenate([w[f"{i}.{n}.b"] for n in "qkv"])
    a = g.node("Attention", [x, g.constant(f"{i}.qkv", qkv), g.constant(f"{i}.qkvb", bias), lengths],
               domain=ms, num_heads=heads)
    a = g.node("MatMul", [a, g.constant(f"{i}.ow", w[f"{i}.o.w"].T)])
    x = g.node("SkipLayerNormalization",
               [a, x] + [g.constant(f"{i}.{n}", w[f"{i}.{n}"]) for n in ("ln1.g", "ln1.b", "o.b")],
               domain=ms, epsilon=EPSILON)
    f = g.node("MatMul", [x, g.constant(f"{i}.upw", w[f"{i}.up.w"].T)])
    f = g.node("BiasGelu", [f, g.constant(f"{i}.upb", w[f"{i}.up.b"])], domain=ms)
    f = g.node("MatMul", [f, g.constant(f"{i}.downw", w[f"{i}.down.w"].T)])
    return g.node("SkipLayerNormalization",
                  [f, x] + [g.constant(f"{i}.{n}", w[f"{i}.{n}"]) for n in ("ln2.g", "ln2.b", "down.b")],
                  domain=ms, epsilon=EPSILON)


def onnx_graph(shape, w):
    """ids (B, T) int64, at (T) int64 = 0…T-1, lengths (B) int32, prompt (T, H) -> logits (B, T, 2)."""
    g = Graph()
    x = g.node("Gather", [g.constant("word", w["word"]), "ids"])
    p = g.node("Gather", [g.constant("position", w["position"] + w["type"]), "at"])
    x = g.node("LayerNormalization", [g.node("Add", [x, p]), g.constant("eg", w["embed.g"]),
                                      g.constant("eb", w["embed.b"])], epsilon=EPSILON)
    x = g.node("Add", [x, "prompt"])
    for i in range(shape["layers"]):
        x = _layer_fused(g, w, i, x, "lengths", shape["heads"])
    x = g.node("MatMul", [x, g.constant("hw", w["head.w"].T)])
    g.nodes.append(helper.make_node("Add", [x, g.constant("hb", w["head.b"])], ["logits"]))
    inputs = [helper.make_tensor_value_info("ids", TensorProto.INT64, ["B", "T"]),
              helper.make_tensor_value_info("at", TensorProto.INT64, ["T"]),
              helper.make_tensor_value_info("lengths", TensorProto.INT32, ["B"]),
              helper.make_tensor_value_info("prompt", TensorProto.FLOAT, ["T", shape["hidden"]])]
    output = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["B", "T", 2])
    graph = helper.make_graph(g.nodes, "bert", inputs, [output], g.constants)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


class Onnx:
    """ONNX Runtime on its CPU provider, all graph optimisations, `threads` threads."""

    def __init__(self, shape, w, threads):
        import onnxruntime as ort
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        self.session = ort.InferenceSession(onnx_graph(shape, w).SerializeToString(), options,
                                            providers=["CPUExecutionProvider"])

    def run(self, ids, lengths, prompt):
        feed = {"ids": ids.astype(np.int64), "at": np.arange(ids.shape[1], dtype=np.int64),
                "lengths": lengths.astype(np.int32), "prompt": prompt}
        return self.session.run(None, feed)[0]


# ---- PyTorch ----------------------------------------------------------------------------------------


class Torch:
    """PyTorch eager: linear, scaled_dot_product_attention, layer_norm, gelu."""

    def __init__(self, shape, w, threads):
        import torch
        torch.set_num_threads(threads)
        self.torch, self.shape = torch, shape
        self.w = {name: torch.from_numpy(np.ascontiguousarray(t)) for name, t in w.items()}
        for i in range(shape["layers"]):
            self.w[f"{i}.qkv.w"] = torch.cat([self.w[f"{i}.{n}.w"] for n in "qkv"])
            self.w[f"{i}.qkv.b"] = torch.cat([self.w[f"{i}.{n}.b"] for n in "qkv"])

    def trained(self):
        """The names of the tensors that tuning every weight tunes."""
        return [name for name in self.w if name.split(".", 1)[-1] not in ("q.w", "k.w", "v.w", "q.b", "k.b", "v.b")
                and not name.startswith("head")]

    def hidden(self, ids, mask, prompt):
        """(B, T, H), the last layer's output; mask (B, 1, 1, T) or None, prompt (T, H) or 0."""
        F, w, H = self.torch.nn.functional, self.w, self.shape["hidden"]
        heads, (B, T) = self.shape["heads"], ids.shape
        x = w["word"][ids] + w["position"][:T] + w["type"]
        x = F.layer_norm(x, (H,), w["embed.g"], w["embed.b"], EPSILON) + prompt
        for i in range(self.shape["layers"]):
            qkv = F.linear(x, w[f"{i}.qkv.w"], w[f"{i}.qkv.b"])
            q, k, v = qkv.view(B, T, 3, heads, H // heads).permute(2, 0, 3, 1, 4)
            a = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
            a = F.linear(a.transpose(1, 2).reshape(B, T, H), w[f"{i}.o.w"], w[f"{i}.o.b"])
            x = F.layer_norm(x + a, (H,), w[f"{i}.ln1.g"], w[f"{i}.ln1.b"], EPSILON)
            f = F.gelu(F.linear(x, w[f"{i}.up.w"], w[f"{i}.up.b"]))
            f = F.linear(f, w[f"{i}.down.w"], w[f"{i}.down.b"])
            x = F.layer_norm(x + f, (H,), w[f"{i}.ln2.g"], w[f"{i}.ln2.b"], EPSILON)
        return x

    def forward(self, ids, mask, prompt):
        return self.torch.nn.functional.linear(self.hidden(ids, mask, prompt), self.w["head.w"],
                                               self.w["head.b"])

    def run(self, ids, lengths, prompt):
        torch = self.torch
        mask = None
        if (lengths < ids.shape[1]).any():
            mask = (torch.arange(ids.shape[1]) < torch.from_numpy(lengths)[:, None])[:, None, None, :]
        with torch.inference_mode():
            return self.forward(torch.from_numpy(ids.astype(np.int64)), mask,
                                torch.from_numpy(prompt)).numpy()

    def train_step(self, ids, modules, route, target):
        """Loss and the gradient of the route's numbers alone, as `mp2` trains one."""
        torch = self.torch
        weights = torch.sigmoid(route)
        merged = torch.einsum("k,kph->ph", weights / (weights.sum() + 1e-12), modules)
        T, P = ids.shape[1], merged.shape[0]
        prompt = torch.nn.functional.pad(merged, (0, 0, 1, T - P - 1))
        logits = self.forward(ids, None, prompt)
        loss = torch.nn.functional.cross_entropy
        total = (loss(logits[..., 0], target) + loss(logits[..., 1], target)) / 2
        return torch.autograd.grad(total, route)[0]


def spread(prompt, T):
    """(P, H) -> (T, H): zero but at positions 1..P."""
    full = np.zeros((T, prompt.shape[1]), np.float32)
    full[1:1 + len(prompt)] = prompt
    return full
