"""Which operators are variables of a search, and which follow: the same for every compiler."""

from __future__ import annotations

WEIGHTED = frozenset({"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV"})
"""Operators with weights: variables where these are constant."""

ARITHMETIC = frozenset({
    "ADD", "SUB", "MUL", "DIV", "MEAN", "SUM", "SQUARED_DIFFERENCE", "RSQRT", "SQRT", "SOFTMAX", "GELU",
    "LOGISTIC", "TANH", "HARD_SWISH", "BATCH_MATMUL", "MAXIMUM", "RELU",
})
"""Operators without weights that compute: variables with the choices float32 and static int8."""

FOLLOWERS = frozenset({
    "RESHAPE", "TRANSPOSE", "PAD", "PADV2", "MIRROR_PAD", "MAX_POOL_2D", "AVERAGE_POOL_2D", "CONCATENATION",
    "STRIDED_SLICE", "SLICE", "SPLIT", "PACK", "UNPACK", "GATHER", "BROADCAST_TO", "RESIZE_BILINEAR",
    "RESIZE_NEAREST_NEIGHBOR", "SPACE_TO_DEPTH",
})
"""Operators that move data: they take the format of their producer (`LayerMap.operator_configs`)."""
