"""Runs an ONNX model with onnxruntime, for the proof of an import: in a process of its own.

Reads a request, one JSON object, from standard input, and writes one to the file that it names.
"""

from typing import Any


def disturb(request: dict[str, Any]) -> dict[str, Any]:
    """Write the model with random values in place of weights that are the same everywhere, which would hide faults."""
    import numpy as np
    import onnx
    from onnx import helper, numpy_helper

    model = onnx.load(request["path"])
    random = np.random.default_rng(0)
    known = {initializer.name: initializer for initializer in model.graph.initializer}
    reads = {name for node in model.graph.node if node.op_type in WEIGHTED for name in node.input[1:]}
    # a constant is read directly, or through what gives it other axes
    for node in model.graph.node:
        if node.op_type == "Unsqueeze" and node.output[0] in reads | set(_merged(model)):
            reads.add(node.input[0])
    for node in [node for node in model.graph.node if node.op_type == "ConstantOfShape" and node.output[0] in reads]:
        shape = [int(n) for n in numpy_helper.to_array(known[node.input[0]])]
        attribute = {a.name: helper.get_attribute_value(a) for a in node.attribute}.get("value")
        value = numpy_helper.to_array(attribute) if attribute is not None else np.zeros(1, np.float32)
        made = numpy_helper.from_array(np.full(shape, value.ravel()[0]), node.output[0])
        model.graph.initializer.append(made)
        model.graph.node.remove(node)
    for initializer in model.graph.initializer:
        values = numpy_helper.to_array(initializer)
        if initializer.name not in reads or values.dtype != np.float32 or values.size < 2 or np.ptp(values):
            continue
        if values.ndim > 1:
            fan = values[0].size
            drawn = random.standard_normal(values.shape, np.float32) * np.float32((2 / fan) ** 0.5)
        else:
            drawn = random.uniform(0.5, 1.5, values.shape).astype(np.float32)
        initializer.CopyFrom(numpy_helper.from_array(drawn, initializer.name))
    if model.graph.node[-1].op_type == "Softmax":
        _calm(model, request["shape"])
    onnx.save(model, request["out"])
    return {}


def _calm(model: Any, shape: list[int]) -> None:
    """Divide the last layer by the deviation of the scores, of which a softmax would leave the largest alone."""
    import numpy as np
    import onnx
    from onnx import helper, numpy_helper

    layer = [node for node in model.graph.node if node.op_type in ("Gemm", "MatMul", "Conv")][-1]
    seen = onnx.ModelProto()
    seen.CopyFrom(model)
    scores = helper.make_tensor_value_info(model.graph.node[-1].input[0], onnx.TensorProto.FLOAT, None)
    del seen.graph.output[:]
    seen.graph.output.append(scores)
    images = np.random.default_rng(1).standard_normal((1, *shape)).astype(np.float32)
    deviation = float(np.std(_run(seen.SerializeToString(), images)))
    for initializer in model.graph.initializer:
        if initializer.name in layer.input[1:] and deviation > 0:
            values = numpy_helper.to_array(initializer) / np.float32(deviation)
            initializer.CopyFrom(numpy_helper.from_array(values, initializer.name))


WEIGHTED = (
    "Conv",
    "ConvTranspose",
    "Gemm",
    "MatMul",
    "BatchNormalization",
    "InstanceNormalization",
    "LayerNormalization",
)


def _merged(model: Any) -> list[str]:
    """Return the inputs of elementwise operators, among them the scales and shifts of norms."""
    return [name for node in model.graph.node if node.op_type in ("Add", "Mul") for name in node.input]


def reference(request: dict[str, Any]) -> dict[str, Any]:
    """Write the output of the model for the images of a .npy file, one by one, to the .npy file `arrays`."""
    import numpy as np
    import onnxruntime

    images = np.load(request["inputs"]).astype(np.float32)
    np.save(request["arrays"], np.concatenate([_run(request["path"], image[None]) for image in images]))
    return {"versions": {"onnxruntime": onnxruntime.__version__}}


def _run(model: Any, images: Any) -> Any:
    """Return the output of a model, a path or bytes, computed as it stands."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    known = {initializer.name for initializer in session.get_overridable_initializers()}
    (name,) = (value.name for value in session.get_inputs() if value.name not in known)
    return session.run(None, {name: images})[0]


if __name__ == "__main__":
    import protocol

    protocol.answer_once({"disturb": disturb, "reference": reference})
