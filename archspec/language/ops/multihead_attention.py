"""multihead_attention: self-attention of tokens."""

from math import prod
from typing import Any, ClassVar, Literal

from archspec.language.initializers import NO_INIT, Init, XavierUniform, Zeros
from archspec.language.ops.base import Counts, Op, Param, SavedTensors, Shape, ShapeError, Size, require_tokens


class MultiheadAttention(Op):
    """y = concat(softmax(q k^T / sqrt(D / num_heads)) v) W_o^T + b_o, of each head, as torch.nn.MultiheadAttention.

    (L, D), unchanged: every token attends to all (Vaswani et al. 2017). q, k and v are the thirds of x W_i^T + b_i:
    `in_proj_weight` is (3 D, D), `out_proj.weight` (D, D). By default in_proj_weight is xavier_uniform, and biases are
    0. Trap: keras.layers.MultiHeadAttention computes its softmax in float32 on JAX, whatever its dtype (3e-8 off).
    """

    called_specially: ClassVar[bool] = True
    saturates: ClassVar[bool] = True

    op: Literal["multihead_attention"]
    num_heads: Size
    bias: bool = True
    init: Init = NO_INIT

    def output_shape(self, *shapes: Shape) -> Shape:
        _, features = require_tokens(shapes[0])
        if features % self.num_heads:
            message = f"num_heads={self.num_heads} must divide its {features} features"
            raise ShapeError("groups", message, "num_heads")
        return shapes[0]

    def params(self, *shapes: Shape) -> dict[str, Param]:
        d = shapes[0][1]
        found = {"in_proj_weight": Param((3 * d, d), "kernel")}
        if self.bias:
            found["in_proj_bias"] = Param((3 * d,), "bias")
        found["out_proj.weight"] = Param((d, d), "kernel")
        if self.bias:
            found["out_proj.bias"] = Param((d,), "bias")
        return found

    def torch_default(self, param: str) -> Any:
        if param == "in_proj_weight":
            return XavierUniform.model_construct(gain=1.0)
        return None if param == "out_proj.weight" else Zeros.model_construct()

    def counts(self, *shapes: Shape) -> Counts:
        length, d = shapes[0]
        scores = self.num_heads * length**2
        found = {"mac": 4 * length * d * d, "matmul": 2 * length**2 * d, "mul": length * d}
        found |= {"exp": scores, "add": scores - self.num_heads * length, "div": scores}
        return {**found, "bias_add": 4 * length * d} if self.bias else found

    def grad_counts(self, *shapes: Shape) -> Counts:
        length, d = shapes[0]
        scores = self.num_heads * length**2
        found = {"mac": 4 * length * d * d, "matmul": 4 * length**2 * d, "mul": length * d + 2 * scores}
        return {**found, "add": 2 * scores - self.num_heads * length}

    def saved_for_backward(self, *shapes: Shape) -> SavedTensors:
        # q, k, v, the attention's output and one sum of exponentials for each row: the softmax is computed again
        return SavedTensors(input=True, elements=4 * prod(shapes[0]) + self.num_heads * shapes[0][0])

    def receptive_window(self, *shapes: Shape) -> None:
        return None
