"""What TensorRT is given computes the same as the graph it was made from, with every attention one operator."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import onnx.parser
import onnx.shape_inference
import onnx_ir
import onnxruntime
import pytest

from risexport.native.native_graph import ATTENTION_OPSET, to_native

OPERANDS = "float16[B,2,5,8] q, float16[B,2,8,7] k, float16[B,2,7,8] v"
RESULT = "float16[B,2,5,8] y"
END = "w = Softmax<axis=-1>(l)  y = MatMul(w, v)"


def graph(inputs: str, body: str, outputs: str = RESULT) -> onnx_ir.Model:
    text = f'<ir_version: 10, opset_import: ["": 20]> g ({inputs}) => ({outputs}) {{ {body} }}'
    model = onnx_ir.from_proto(onnx.shape_inference.infer_shapes(onnx.parser.parse_model(text)))
    for value in [value for value in model.graph.inputs if value.name == "factor"]:
        model.graph.inputs.remove(value)
        value.const_value = onnx_ir.tensor(np.array(0.3, np.float16), name="factor")
        model.graph.register_initializer(value)
    return model


def outputs_of(model: onnx_ir.Model, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    data = onnx_ir.to_proto(model).SerializeToString()
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    return list(session.run(None, feeds))


def random_feeds(model: onnx_ir.Model) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    dtypes = {onnx_ir.DataType.FLOAT16: np.float16, onnx_ir.DataType.FLOAT: np.float32}
    feeds = {}
    for value in model.graph.inputs:
        shape = [size if isinstance(size, int) else 3 for size in value.shape or ()]
        feeds[str(value.name)] = rng.normal(size=shape).astype(dtypes[value.dtype])  # type: ignore[index]
    return feeds


@pytest.mark.parametrize(
    ("inputs", "body", "outputs"),
    [
        (OPERANDS, f"l = MatMul(q, k)  {END}", RESULT),
        (f"{OPERANDS}, float16[B,1,1,7] bias", f"p = MatMul(q, k)  l = Add(p, bias)  {END}", RESULT),
        (f"{OPERANDS}, float16[1,1,5,7] bias", f"p = MatMul(q, k)  l = Add(bias, p)  {END}", RESULT),
        (
            f"{OPERANDS}, float16[1,2,5,7] bias, float16 factor",
            f"p = MatMul(q, k)  s = Mul(p, factor)  l = Add(s, bias)  {END}",
            RESULT,
        ),
        (
            "float16[H,6,8] q, float16[H,8,12] k, float16[H,12,8] v, float16[H,6,3,1] rows, float16[H,6,1,4] columns",
            "m = Constant<value = int64[4] {0, 6, 3, 4}>()  f = Constant<value = int64[3] {0, 6, 12}>()  "
            f"p = MatMul(q, k)  a = Reshape(p, m)  b = Add(a, rows)  c = Add(b, columns)  l = Reshape(c, f)  {END}",
            "float16[H,6,8] y",
        ),
    ],
    ids=["plain", "bias of keys", "bias first", "scaled", "map of keys"],
)
def test_an_attention_becomes_one_operator(inputs: str, body: str, outputs: str) -> None:
    model = graph(inputs, body, outputs)
    feeds = random_feeds(model)
    (expected,) = outputs_of(model, feeds)
    assert to_native(model) == 1
    operators = Counter(node.op_type for node in model.graph)
    assert operators["Attention"] == 1
    assert not operators["Softmax"] + operators["MatMul"]
    assert model.graph.opset_imports[""] == ATTENTION_OPSET
    (actual,) = outputs_of(model, feeds)
    np.testing.assert_allclose(actual.astype(np.float32), expected.astype(np.float32), atol=4e-3)


@pytest.mark.parametrize(
    ("inputs", "body", "outputs"),
    [
        (OPERANDS.replace("16", "32").replace("float32", "float"), f"l = MatMul(q, k)  {END}", "float[B,2,5,8] y"),
        (OPERANDS.replace("[B,2,8,7] k", "[1,2,8,7] k"), f"l = MatMul(q, k)  {END}", RESULT),
        (OPERANDS, "l = MatMul(q, k)  w = Softmax<axis=-2>(l)  y = MatMul(w, v)", RESULT),
        (OPERANDS, f"l = MatMul(q, k)  {END}", f"{RESULT}, float16[B,2,5,7] w"),
        (f"{OPERANDS}, float16[B,2,5,7] l", END, RESULT),
    ],
    ids=["single precision", "keys of one image for all", "other axis", "weights read elsewhere", "no product"],
)
def test_what_is_no_attention_stays(inputs: str, body: str, outputs: str) -> None:
    model = graph(inputs, body, outputs)
    before = [node.op_type for node in model.graph]
    assert to_native(model) == 0
    assert [node.op_type for node in model.graph] == before


def test_bytes_are_cast_where_they_come_in() -> None:
    model = graph(
        "uint8[H,W,3] image, bool[N,H,W] masks",
        "s = Shape(image)  t = Transpose<perm=[2, 0, 1]>(image)  x = Cast<to=1>(t)  b = Cast<to=2>(masks)  "
        "a = Constant<value = int64[1] {2}>()  m = ReduceMax<keepdims=0>(b, a)  n = Cast<to=7>(m)",
        "float[3,H,W] x, int64[N,H] n, int64[3] s",
    )
    rng = np.random.default_rng(0)
    feeds = {"image": rng.integers(0, 256, (4, 5, 3), dtype=np.uint8), "masks": rng.random((2, 4, 5)) < 0.2}
    expected = outputs_of(model, feeds)
    to_native(model)
    for node in model.graph:
        assert all(value.dtype != onnx_ir.DataType.UINT8 for value in node.outputs)
        takes_bytes = any(value is not None and value.dtype == onnx_ir.DataType.UINT8 for value in node.inputs)
        assert not takes_bytes or node.op_type in {"Cast", "Shape"}
    for one, two in zip(outputs_of(model, feeds), expected, strict=True):
        np.testing.assert_array_equal(one, two)
