"""dot_product_attention: the attention of queries to keys and values, without projections."""

from typing import Any, ClassVar, Literal

from archspec.language.ops.base import Counts, Op, SavedTensors, Shape, ShapeError, Size, require_tokens


class DotProductAttention(Op):
    """y = concat(softmax(q k^T / sqrt(D / num_heads)) v) of each head (Vaswani et al. 2017, section 3.2.1).

    Reads three layers, q, k and v: (L, D), (M, D) and (M, E) to (L, E). Head h has the h-th of `num_heads` equal blocks
    of their features. As torch.nn.functional.scaled_dot_product_attention. Self-attention whose q, k and v are of one
    linear layer and that another one follows is `multihead_attention`. Trap: Keras' own computes its softmax in float32
    on JAX, whatever its dtype.
    """

    inputs: ClassVar[tuple[int, int]] = (3, 3)
    combines: ClassVar[bool] = True
    saturates: ClassVar[bool] = True

    op: Literal["dot_product_attention"]
    num_heads: Size

    def output_shape(self, *shapes: Shape) -> Shape:
        (length, features), (keys, others), (values, size) = map(require_tokens, shapes)
        if features != others or keys != values:
            message = "needs queries and keys of as many features, and as many keys as values"
            raise ShapeError("shapes", message, "from")
        if features % self.num_heads or size % self.num_heads:
            message = f"num_heads={self.num_heads} must divide its {features} and {size} features"
            raise ShapeError("groups", message, "num_heads")
        return length, size

    def channels(self, *channels: Any) -> Any:
        return channels[2]

    def counts(self, *shapes: Shape) -> Counts:
        (length, features), (keys, size) = shapes[0], shapes[2]
        scores = self.num_heads * length * keys
        found = {"matmul": length * keys * (features + size), "mul": length * features}
        return {**found, "exp": scores, "add": scores - self.num_heads * length, "div": scores}

    def grad_counts(self, *shapes: Shape) -> Counts:
        (length, features), (keys, size) = shapes[0], shapes[2]
        scores = self.num_heads * length * keys
        found = {"matmul": 2 * length * keys * (features + size), "mul": length * features + 2 * scores}
        return {**found, "add": 2 * scores - self.num_heads * length}

    def saved_for_backward(self, *shapes: Shape) -> SavedTensors:
        # and one sum of exponentials for each row: the softmax is computed again
        return SavedTensors(input=True, output=True, elements=self.num_heads * shapes[0][0])

    def receptive_window(self, *shapes: Shape) -> None:
        return None
