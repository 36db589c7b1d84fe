"""Four doubles at a time inside numba kernels.

LLVM vectorises long simple loops by itself, but not the kernels of SOAP: their inner loops are a
few elements long, and LLVM cannot know that the arrays do not overlap. ``Lanes`` states which four
elements belong together, and LLVM maps them to the registers of the processor.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic, models, register_model
from numba.np import arrayobj

WIDTH = 4
_VECTOR = ir.VectorType(ir.DoubleType(), WIDTH)


class Lanes(types.Type):
    """The numba type of four doubles."""

    def __init__(self) -> None:
        super().__init__(name="Lanes")


_lanes = Lanes()


@register_model(Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, numba_type: Any) -> None:
        super().__init__(manager, numba_type, _VECTOR)


def _address(context: Any, builder: Any, array_type: Any, array: Any, index: Any) -> Any:
    data = arrayobj.make_array(array_type)(context, builder, array).data
    return builder.gep(data, [index])


@intrinsic
def load(typing_context, array, index):
    """Elements index to index + 3 of a contiguous float64 array; no bounds check."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        element = _address(context, builder, signature.args[0], *arguments)
        pointer = builder.bitcast(element, _VECTOR.as_pointer())
        return builder.load(pointer, align=8)

    return _lanes(array, types.intp), generate


@intrinsic
def store(typing_context, array, index, value):
    """Write four lanes to elements index to index + 3 of a contiguous float64 array."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        element = _address(context, builder, signature.args[0], *arguments[:2])
        pointer = builder.bitcast(element, _VECTOR.as_pointer())
        builder.store(arguments[2], pointer, align=8)
        return context.get_dummy_value()

    return types.void(array, types.intp, _lanes), generate


@intrinsic
def splat(typing_context, number):
    """Put the same number into all four lanes."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        zero = ir.Constant(ir.IntType(32), 0)
        one_lane = builder.insert_element(ir.Constant(_VECTOR, ir.Undefined), arguments[0], zero)
        everywhere = ir.Constant(ir.VectorType(ir.IntType(32), WIDTH), [0] * WIDTH)
        return builder.shuffle_vector(one_lane, ir.Constant(_VECTOR, ir.Undefined), everywhere)

    return _lanes(types.float64), generate


@intrinsic
def total(typing_context, value):
    """Sum of the four lanes, always in the same order."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        lane = [
            builder.extract_element(arguments[0], ir.Constant(ir.IntType(32), k))
            for k in range(WIDTH)
        ]
        return builder.fadd(builder.fadd(lane[0], lane[1]), builder.fadd(lane[2], lane[3]))

    return types.float64(_lanes), generate


@intrinsic
def scatter(typing_context, array, index, stride, value):
    """Write the lanes to elements index, index + stride, index + 2 stride, index + 3 stride."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array_value, position, stride, value = arguments
        for k in range(WIDTH):
            element = _address(context, builder, signature.args[0], array_value, position)
            lane = builder.extract_element(value, ir.Constant(ir.IntType(32), k))
            builder.store(lane, element, align=8)
            position = builder.add(position, stride)
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, _lanes), generate


def _arithmetic(operation: str) -> Callable[..., Any]:
    @intrinsic
    def operate(typing_context, left, right):
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return getattr(builder, operation)(*arguments)

        return _lanes(_lanes, _lanes), generate

    return operate


add = _arithmetic("fadd")
sub = _arithmetic("fsub")
mul = _arithmetic("fmul")


@intrinsic
def fma(typing_context, left, right, addend):
    """Left * right + addend, as one fused operation if the processor has it."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        # fmuladd, not fma: without the instruction the latter is a slow library call.
        function_type = ir.FunctionType(_VECTOR, [_VECTOR] * 3)
        name = f"llvm.fmuladd.v{WIDTH}f64"
        function = cgutils.get_or_insert_function(builder.module, function_type, name)
        return builder.call(function, arguments)

    return _lanes(_lanes, _lanes, _lanes), generate
