"""Counting conventions of tools and papers, as data: linear combinations of counts by kind.

Each gives the integer that the tool prints; the tests compare it with the tool where that can be installed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from archspec.analysis import counts
from archspec.graph import Graph, Node


@dataclass(frozen=True, slots=True)
class Convention:
    """A counting convention: the factor of each kind of each op. `*.mac` is the kind `mac` of any op."""

    name: str
    unit: str
    terms: Mapping[str, int]
    says: str  # what is counted, and what is known to be counted twice

    def count(self, node: Node) -> int:
        """Return the count of a layer for one sample."""
        return self._of(_named(node))

    def total(self, graph: Graph) -> int:
        """Return the count of the network for one sample."""
        return self._of(_all(graph))

    def _of(self, counted: Mapping[str, int]) -> int:
        terms = self.terms
        return sum(
            n * (terms.get(what, 0) + terms.get(f"*.{what.partition('.')[2]}", 0)) for what, n in counted.items()
        )


def totals(graph: Graph) -> dict[str, int]:
    """Return the count of the network for one sample in each convention, by name."""
    counted = _all(graph)
    return {name: convention._of(counted) for name, convention in CONVENTIONS.items()}


def _named(node: Node) -> dict[str, int]:
    """Return the counts of a layer by op and kind, `conv2d.mac`."""
    return {f"{node.op.op}.{kind}": number for kind, number in counts(node).items()}


def _all(graph: Graph) -> Counter[str]:
    """Return the counts of all layers together, by op and kind."""
    counted: Counter[str] = Counter()
    for node in graph.nodes:
        counted.update(_named(node))
    return counted


_LRN_IN_POOL3D = {"local_response_norm.in": 3, "local_response_norm.padded": 1}

CONVENTIONS = {
    convention.name: convention
    for convention in (
        Convention("mac", "MACs", {"*.mac": 1, "*.matmul": 1}, "multiply-accumulates, those of attention included"),
        Convention("mac+bias", "MACs", {"*.mac": 1, "*.matmul": 1, "*.bias_add": 1}, "and the adds of biases"),
        Convention("flop", "FLOPs", {"*.mac": 2, "*.matmul": 2}, "2 x MACs"),
        Convention(
            "fvcore",
            '"FLOPs" (MACs)',
            {
                "*.mac": 1,
                "shifted_window_attention.matmul": 1,
                "upsample.mul": 1,
                "upsample.copied": 1,
                "adaptive_avg_pool2d.in": 1,
                "batch_norm2d.in": 1,
                "batch_norm2d.scaled": 1,
                "group_norm.in": 5,
                "layer_norm.in": 4,
                "layer_norm.scaled": 1,
            },
            "MACs, the inputs of adaptive average pools, 2 for every input of batch normalization; LRN and "
            "the products of attention are left out, with a warning (fvcore 0.1.5)",
        ),
        Convention(
            "thop",
            "MACs",
            {
                "*.mac": 1,
                "multihead_attention.mac": -1,
                "shifted_window_attention.mac": -1,
                "conv_transpose2d.mac": -1,
                "conv_transpose2d.output_mac": 1,
                "upsample.mul": 2,
                "upsample.copied": 1,
                "upsample.add": 1,
                "adaptive_avg_pool2d.in": 1,
                "adaptive_avg_pool2d.out": 1,
                "avg_pool2d.out": 1,
                "batch_norm2d.in": 2,
                "batch_norm2d.scaled": 2,
                "layer_norm.vector_in": 2,
                "layer_norm.vector_scaled": 2,
            },
            "MACs; average pools as a divide, adaptive ones as adds too; 4 for every input of batch normalization, as "
            "in training; nothing of attention (thop 0.1.1)",
        ),
        Convention(
            "thop-params",
            "parameters",
            {
                "conv2d.params": 1,
                "conv_transpose2d.params": 1,
                "linear.params": 1,
                "batch_norm2d.params": 1,
                "layer_norm.vector_params": 1,
            },
            "parameters of the layers that it knows: those of attention, embeddings, layer scales and norms of maps "
            "are missing (thop 0.1.1)",
        ),
        Convention(
            "torchinfo",
            "mult-adds",
            {
                "conv2d.mac": 1,
                "conv2d.bias_add": 1,
                "conv_transpose2d.output_mac": 1,
                "conv_transpose2d.bias_add": 1,
                "linear.params": 1,
                "batch_norm2d.params": 1,
                "group_norm.params": 1,
                "layer_norm.params": 1,
                "layer_scale.params": 1,
                "class_token.params": 1,
                "position_embedding.params": 1,
                "shifted_window_attention.params_by_width": 1,
            },
            "parameters times positions: MACs and the adds of biases; the parameters of norms once; linear layers on "
            "tokens as if they read one, and nothing of attention (torchinfo 1.8)",
        ),
        Convention(
            "ptflops",
            "MACs",
            {
                "*.mac": 1,
                "*.bias_add": 1,
                "relu.in": 2,
                "relu6.in": 1,
                "leaky_relu.in": 1,
                "elu.in": 2,
                "silu.in": 1,
                "hardsigmoid.in": 1,
                "gelu.in": 2,
                "layer_norm.vector_in": 1,
                "max_pool2d.in": 2,
                "avg_pool2d.in": 2,
                "adaptive_avg_pool2d.in": 2,
                "batch_norm2d.in": 1,
                "batch_norm2d.scaled": 1,
                "group_norm.in": 2,
                "multihead_attention.matmul": 1,
                "multihead_attention.mul": 1,
                "multihead_attention.div": 1,
                "shifted_window_attention.mac": -1,
                "shifted_window_attention.bias_add": -1,
                "upsample.out": 2,
                **_LRN_IN_POOL3D,
            },
            "its default backend: MACs, biases, ReLUs and pools twice over (a bug: the module's hook counts, and so "
            "does the patched function), and what LRN calls (ptflops 0.7.5)",
        ),
        Convention(
            "ptflops-aten",
            "MACs",
            {"*.mac": 1, "*.bias_add": 1, "shifted_window_attention.matmul": 1},
            "its other backend: MACs and the adds of biases; of attention only what is no function of PyTorch's "
            "(ptflops 0.7.5)",
        ),
        Convention("calflops-macs", "MACs", {"*.mac": 1}, "MACs; no products of attention (calflops 0.3.2, DeepSpeed)"),
        Convention(
            "calflops",
            "FLOPs",
            {
                "*.mac": 2,
                "conv2d.bias_add": 1,
                "conv_transpose2d.smaller_bias_add": 1,
                "upsample.in": 1,
                "relu.in": 1,
                "leaky_relu.in": 1,
                "elu.in": 1,
                "silu.in": 1,
                "hardsigmoid.in": 1,
                "gelu.in": 1,
                "max_pool2d.in": 1,
                "avg_pool2d.in": 1,
                "adaptive_avg_pool2d.in": 1,
                "batch_norm2d.in": 1,
                "batch_norm2d.scaled": 1,
                "group_norm.in": 5,
                "layer_norm.in": 4,
                "layer_norm.scaled": 1,
                **_LRN_IN_POOL3D,
            },
            "2 x MACs, biases of convolutions and not of linear layers, ReLUs, the inputs of pools, what LRN calls "
            "(calflops 0.3.2; DeepSpeed shares the formulas)",
        ),
        Convention(
            "FlopCounterMode",
            "FLOPs",
            {"*.mac": 2, "*.matmul": 2},
            "2 x MACs, forward; on a CPU it leaves out the products of attention, which it counts on the device `meta` "
            "(torch.utils.flop_counter, torch 2.14)",
        ),
        Convention(
            "FlopCounterMode-training",
            "FLOPs",
            {"*.mac": 2, "*.matmul": 2, "*.matmul_grad": 2, "*.input_grad": 2, "*.weight_grad_ungrouped": 2},
            "forward and backward; the weight gradient of a grouped convolution is not divided by its groups (a bug)",
        ),
        Convention(
            "training",
            "FLOPs",
            {"*.mac": 2, "*.matmul": 2, "*.matmul_grad": 2, "*.input_grad": 2, "*.weight_grad": 2},
            "2 x MACs, forward and backward; the first layers need no gradient of their input",
        ),
        Convention(
            "netscope",
            "macc",
            {"*.mac": 1, "local_response_norm.in": 5},
            "MACs and 5 for every input of LRN; its comparisons, adds, divides and powers are columns of their own",
        ),
        Convention(
            "convnet-burden",
            '"FLOPs" (MACs)',
            {"*.mac": 1, "*.bias_add": 1, "relu.in": 2, "max_pool2d.stride_area": 2, "avg_pool2d.stride_area": 2},
            "MACs, biases, 2 for every ReLU, 2 x the stride's area for every output of a pool; no LRN",
        ),
        Convention("darknet", "FLOPs", {"conv2d.mac": 2}, "2 x MACs of convolutions, nothing of linear layers"),
    )
}
