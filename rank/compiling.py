"""Compiles loops by numba; kept in a file of each room, as the rooms share no code."""

from collections.abc import Callable
from typing import Any

import numba
from llvmlite import ir
from numba.core import cgutils
from numba.extending import intrinsic


def compiled(*, fastmath: bool | set[str] = False) -> Callable[[Callable[..., Any]], Any]:
    """Compile a function when it is first called, and keep that where there is a place for it.

    Args:
        fastmath: which liberties with floats it takes, see `numba.njit`.
    """

    def compile_it(function: Callable[..., Any]) -> Any:
        try:
            return numba.njit(nogil=True, cache=True, fastmath=fastmath)(function)
        except RuntimeError:  # neither this folder nor the user's cache can be written to
            return numba.njit(nogil=True, fastmath=fastmath)(function)

    return compile_it


def _prefetch(typing, matrix, row, column):  # type: ignore[no-untyped-def]
    """Have the processor load what is around an element, in compiled code; nothing waits for it."""

    def generate(context, builder, signature, values):  # type: ignore[no-untyped-def]
        kind, *of_places = signature.args
        array = context.make_array(kind)(context, builder, values[0])
        places = [
            context.cast(builder, place, of, numba.intp)
            for place, of in zip(values[1:], of_places, strict=True)
        ]
        pointer: Any = cgutils.get_item_pointer
        where = pointer(context, builder, kind, array, places, wraparound=False)
        number = ir.IntType(32)
        takes = ir.FunctionType(ir.VoidType(), [where.type, number, number, number])
        load = builder.module.declare_intrinsic("llvm.prefetch", [where.type], takes)
        read, keep, data = number(0), number(3), number(1)
        builder.call(load, [where, read, keep, data])
        return context.get_dummy_value()

    return numba.none(matrix, row, column), generate


prefetch: Any = intrinsic(_prefetch)
