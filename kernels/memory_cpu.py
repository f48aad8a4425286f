"""What Numba has no word for: two neighbours in one load, and a cache line asked for ahead."""

import numpy as np
from llvmlite import ir
from numba import int32, int64, njit, types
from numba.extending import intrinsic


@intrinsic
def pair(typing_context, source, at):
    """Load two neighbouring int16 as one int32, the first in its lower half; little-endian machines."""

    def codegen(context, builder, signature, arguments):
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        pointer = builder.gep(array.data, [arguments[1]])
        pointer = builder.bitcast(pointer, ir.IntType(32).as_pointer())
        return builder.load(pointer, align=2)

    return int32(source, int64), codegen


@intrinsic
def prefetch(typing_context, source, at):
    """Ask for the cache line of an element, which need not exist; nothing is read."""

    def codegen(context, builder, signature, arguments):
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        byte, word = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, word, word, word])
        name = "llvm.prefetch.p0"
        function = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
        pointer = builder.bitcast(builder.gep(array.data, [arguments[1]]), byte)
        builder.call(function, [pointer, word(0), word(3), word(1)])
        return context.get_dummy_value()

    return types.void(source, int64), codegen


@njit
def lower(pair):
    """Return the first int16 of a pair as float32."""
    return np.float32(np.int32(np.int32(pair << np.int32(16)) >> np.int32(16)))


@njit
def upper(pair):
    """Return the second int16 of a pair as float32."""
    return np.float32(np.int32(pair >> np.int32(16)))
