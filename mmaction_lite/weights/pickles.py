"""Unpickler that imports nothing and calls no function that a pickle names.

A pickle is a program for a small stack machine. Python's unpickler imports the object `module.name` and calls
it, so loading a checkpoint can execute any code. This unpickler never resolves a name. The functions of
`BUILDERS` build the few objects that weights need (tensors, NumPy arrays, containers) and validate their
arguments; objects of all other names become an inert `Ignored`. Opcodes and their arguments are read by
Python's `pickletools`.
"""

import codecs
import math
import pickletools
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

OPCODES = {opcode.code: opcode for opcode in pickletools.opcodes}
MARK = object()
ATOMS = (str, int, float, bytes, type(None))  # allowed keys: hashing nested objects can take forever
MOST_DIMENSIONS = 64
LONGEST_SIDE = 1 << 62  # of a tensor; also the largest integer that may be a key
EXPANDED_BYTES = 1 << 16  # largest tensor whose elements may share memory, such as an expanded bias
OPCODE_COST = 100  # bytes of memory that an opcode may take
FREE_BYTES = 500_000_000  # memory that the objects of a small file may take


@dataclass(frozen=True)
class Name:
    """A name `module.name` in a pickle; never resolved."""

    path: str


@dataclass(frozen=True)
class Ignored:
    """Placeholder of an object of another class; stores the name of the class or function that makes it."""

    path: str


class Unpickler:
    """Reader of consecutive pickles in a file.

    Args:
        file: binary file with `read` and `readline`.
        storage: returns the object of a persistent reference, which PyTorch writes in place of a storage.
        file_bytes: size of the file. The objects may take `FREE_BYTES` and a few times this size.

    Attributes:
        ignored: names of classes and functions that the pickles call and `BUILDERS` does not contain.
    """

    def __init__(self, file: Any, storage: Callable[[Any], Any] | None = None, file_bytes: int = 0):
        self.file = file
        self.storage = storage
        self.ignored: set[str] = set()
        self._room = FREE_BYTES + 4 * file_bytes

    def load(self) -> Any:
        """Return the next object of the file.

        Raises:
            Exception: of any type, if the pickle is damaged or hostile; nothing of it is executed.
        """
        self.stack: list[Any] = []
        memo: dict[int, Any] = {}
        push, pop = self.stack.append, self.stack.pop
        while True:
            opcode = OPCODES[self.file.read(1).decode("latin-1")]
            self._spend(OPCODE_COST)
            argument: Any = self._argument(opcode)
            match opcode.name:
                case "STOP":
                    return pop()
                case "PROTO" | "FRAME":
                    pass
                case "PUT" | "BINPUT" | "LONG_BINPUT":
                    memo[argument] = self.stack[-1]
                case "MEMOIZE":
                    memo[len(memo)] = self.stack[-1]
                case "GET" | "BINGET" | "LONG_BINGET":
                    push(memo[argument])
                case "MARK":
                    push(MARK)
                case "POP":
                    pop()
                case "POP_MARK":
                    self._marked()
                case "DUP":
                    push(self.stack[-1])
                case "APPEND" | "APPENDS" | "SETITEM" | "SETITEMS" | "ADDITEMS" | "BUILD":
                    self._fill(opcode.name)
                case "INST" | "OBJ" | "REDUCE" | "NEWOBJ" | "NEWOBJ_EX":
                    push(self._call(*self._target(opcode.name, argument)))
                case _:
                    push(self._value(opcode.name, argument))

    def _fill(self, opcode: str) -> None:
        """Pop items or a state, and put them into the object below."""
        pop = self.stack.pop
        match opcode:
            case "APPEND":
                item = pop()
                _append(self.stack[-1], [item])
            case "APPENDS":
                items = self._marked()
                _append(self.stack[-1], items)
            case "SETITEM":
                value, key = pop(), pop()
                _set_items(self.stack[-1], [key, value])
            case "SETITEMS":
                items = self._marked()
                _set_items(self.stack[-1], items)
            case "ADDITEMS":
                items = self._marked()
                _add(self.stack[-1], items)
            case "BUILD":
                state = pop()
                _set_state(self.stack[-1], state)

    def _target(self, opcode: str, argument: Any) -> tuple[Any, Any]:
        """Pop what an opcode calls, and the arguments of the call."""
        pop = self.stack.pop
        match opcode:
            case "INST":
                return _name(argument), self._marked()
            case "OBJ":
                target, *arguments = self._marked()
                return target, arguments
            case "NEWOBJ_EX":
                pop()  # keyword arguments, which no object of weights has
        arguments, target = pop(), pop()
        return target, arguments

    def _value(self, opcode: str, argument: Any) -> Any:
        """Return the new object that an opcode makes of its argument or of popped items.

        Raises:
            ValueError: the opcode is not one of a checkpoint.
        """
        pop = self.stack.pop
        match opcode:
            case "NONE":
                return None
            case "NEWTRUE" | "NEWFALSE":
                return opcode == "NEWTRUE"
            case "EMPTY_TUPLE" | "EMPTY_LIST" | "EMPTY_DICT" | "EMPTY_SET":
                return {"TUPLE": tuple, "LIST": list, "DICT": dict, "SET": set}[opcode[6:]]()
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                items = [pop() for _ in range(int(opcode[5:]))]
                return tuple(reversed(items))
            case "TUPLE":
                return tuple(self._marked())
            case "LIST":
                return self._marked()
            case "DICT":
                return _set_items({}, self._marked())
            case "FROZENSET":
                return _add({*()}, self._marked())
            case "GLOBAL":
                return _name(argument)
            case "STACK_GLOBAL":
                name, module = pop(), pop()
                return Name(module + "." + name)
            case "EXT1" | "EXT2" | "EXT4":
                return Name(f"copyreg extension {argument}")
            case "PERSID" | "BINPERSID":
                return self._persistent(argument if opcode == "PERSID" else pop())
            case _ if argument is not None:  # all opcodes of numbers, strings and bytes
                return argument
        raise ValueError(f"opcode {opcode}")

    def _argument(self, opcode: pickletools.OpcodeInfo) -> Any:
        """Return the argument of the opcode, or None."""
        if opcode.name == "STRING":  # bytes of Python 2, which pickletools decodes as ASCII
            line = pickletools.read_stringnl(self.file, decode=False)
            return codecs.escape_decode(line)[0].decode("latin-1")
        return opcode.arg.reader(self.file) if opcode.arg else None

    def _marked(self) -> list[Any]:
        """Pop the items above the topmost mark, and the mark."""
        items = []
        while (item := self.stack.pop()) is not MARK:
            items.append(item)
        return items[::-1]

    def _spend(self, cost: int) -> None:
        """Subtract an estimate of the memory of new objects from the room that is left.

        A pickle can refer to one object any number of times, and have each reference copied.
        """
        self._room -= cost
        if self._room < 0:
            raise ValueError("a pickle of more objects than a checkpoint has")

    def _persistent(self, reference: Any) -> Any:
        if self.storage is None:
            raise ValueError("persistent reference in a plain pickle")
        return self.storage(reference)

    def _call(self, target: Any, arguments: Any) -> Any:
        """Return the object that calling `target` makes, built by `BUILDERS` or ignored."""
        if not isinstance(target, Name | Ignored):
            raise TypeError(f"calls a {type(target).__name__}")
        builder = BUILDERS.get(target.path)
        if not builder:
            self.ignored.add(target.path)
            return Ignored(target.path)
        self._spend(sum(_length(argument) for argument in arguments))
        result = builder(*arguments)
        if isinstance(result, Ignored):
            self.ignored.add(result.path)
        return result


def _name(argument: str) -> Name:
    """Return the name in the argument "module name" of an opcode."""
    return Name(argument.replace(" ", ".", 1))


def _length(value: Any) -> int:
    """Return an estimate of the bytes that a copy of the value takes."""
    if isinstance(value, str | bytes | bytearray):
        return len(value)
    return 64 * len(value) if isinstance(value, list | tuple | dict | set) else 0


def _append(target: Any, items: list[Any]) -> None:
    if isinstance(target, list):
        target.extend(items)
    elif not isinstance(target, Ignored):
        raise TypeError(f"appends to a {type(target).__name__}")


def _add(target: Any, items: list[Any]) -> Any:
    if isinstance(target, set):
        target.update(item for item in items if _is_key(item))
    elif not isinstance(target, Ignored):
        raise TypeError(f"adds to a {type(target).__name__}")
    return target


def _set_items(target: Any, items: list[Any]) -> Any:
    """Set items (key, value, key, value, …) of a dict, except those whose key is not one of `ATOMS`."""
    if isinstance(target, dict):
        pairs = zip(items[::2], items[1::2], strict=True)
        target.update((key, value) for key, value in pairs if _is_key(key))
    elif not isinstance(target, Ignored):
        raise TypeError(f"sets items of a {type(target).__name__}")
    return target


def _is_key(value: Any) -> bool:
    """Whether the value is hashed in a short time."""
    return isinstance(value, ATOMS) and not (isinstance(value, int) and abs(value) > LONGEST_SIDE)


def _set_state(target: Any, state: Any) -> None:
    """Set the data of an array or the byte order of a dtype; ignore the state of other objects."""
    if isinstance(target, np.dtype):
        if state[1] in ("<", ">"):
            target.__setstate__((3, state[1], None, None, None, -1, -1, 0))  # pyright: ignore
    elif isinstance(target, np.ndarray):
        shape, dtype, fortran, data = state[-4:]
        if isinstance(dtype, Ignored):  # arrays of objects, strings or dates stay empty
            return
        data = data.encode("latin-1") if isinstance(data, str) else data
        if not isinstance(dtype, np.dtype) or not isinstance(data, bytes):
            raise TypeError("array of no known dtype")
        if _count(shape) * dtype.itemsize != len(data):
            raise ValueError(f"array of shape {shape} in {len(data)} bytes")
        target.__setstate__((1, shape, dtype, bool(fortran), data))  # pyright: ignore


def _count(shape: Any) -> int:
    """Return the number of elements in `shape`, which must be a tuple of non-negative integers."""
    if (
        not isinstance(shape, tuple)
        or len(shape) > MOST_DIMENSIONS
        or not all(isinstance(size, int) and 0 <= size <= LONGEST_SIDE for size in shape)
    ):
        raise TypeError(f"a {type(shape).__name__} is not the shape of a tensor")
    return math.prod(shape)


def _tensor(
    storage: torch.Tensor | Ignored, offset: Any, size: Any, stride: Any, *_: Any
) -> torch.Tensor | Ignored:
    """Return a view of a storage (1-D). It must lie inside the storage.

    Elements that share memory are allowed in small tensors. Large ones would take more memory than the file.
    """
    if isinstance(storage, Ignored):
        return storage
    count = _count(size)
    _count((offset, *stride))
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if count and last >= len(storage):
        raise ValueError(f"tensor of shape {size} in a storage of {len(storage)}")
    if count > len(storage) and count * storage.itemsize > EXPANDED_BYTES:
        raise ValueError(
            f"tensor of shape {size} that repeats a storage of {len(storage)}; save tensor.contiguous()"
        )
    return storage.as_strided(size, stride, offset)


def _typed_tensor(
    storage: torch.Tensor | Ignored,
    offset: Any,
    size: Any,
    stride: Any,
    requires_grad: Any,
    hooks: Any,
    dtype: Any,
    *_: Any,
) -> torch.Tensor | Ignored:
    """Return a view of a storage of bytes as a dtype without a storage class, such as uint16 or float8."""
    if not isinstance(dtype, Name) or dtype.path not in BYTE_DTYPES or isinstance(storage, Ignored):
        return Ignored("torch._utils._rebuild_tensor_v3")
    return _tensor(storage.view(BYTE_DTYPES[dtype.path]), offset, size, stride)


def _dtype(spec: Any, *_: Any) -> np.dtype | Ignored:
    """Return a new numeric dtype, whose byte order may be set later."""
    if isinstance(spec, str) and re.fullmatch(r"[<>=|]?(b1|[iu][1248]|f[248]|c(8|16))", spec):
        return np.dtype(spec, False, True)
    return Ignored("numpy.dtype of no numbers")


def _scalar(dtype: Any, data: Any) -> Any:
    data = data.encode("latin-1") if isinstance(data, str) else data
    return dtype if isinstance(dtype, Ignored) else np.frombuffer(data, dtype, count=1)[0]


def _array(data: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray | Ignored:
    if isinstance(dtype, Ignored):
        return dtype
    if not isinstance(dtype, np.dtype) or not isinstance(data, bytes | bytearray):
        raise TypeError("array of no known dtype")
    native = np.frombuffer(data, dtype).astype(dtype.newbyteorder("="))
    return native.reshape(shape, order=order)


def _encoded(text: str, encoding: str) -> bytes:
    """Return bytes as protocol 2 encodes them."""
    if encoding not in ("latin1", "latin-1"):
        raise ValueError("bytes in another encoding than latin-1")
    return text.encode("latin-1")


def _dict(items: Any = ()) -> dict:
    pairs = items.items() if isinstance(items, dict) else items
    return _set_items({}, [part for key, value in pairs for part in (key, value)])


# dtypes that PyTorch saves in storages of bytes.
BYTE_DTYPES = {
    f"torch.{name}": getattr(torch, name)
    for name in ("uint16", "uint32", "uint64", "float8_e4m3fn", "float8_e5m2", "float8_e8m0fnu")
    if hasattr(torch, name)
}

BUILDERS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": _dict,
    "collections.Counter": _dict,
    "collections.defaultdict": lambda *factory: {},
    "_codecs.encode": _encoded,
    "numpy.dtype": _dtype,
    "torch.Size": lambda items: tuple(items),
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _typed_tensor,
    "torch._utils._rebuild_parameter": lambda tensor, *_: tensor,
    "torch._utils._rebuild_parameter_with_state": lambda tensor, *_: tensor,
}
for module in ("builtins", "__builtin__"):  # Python 3's and Python 2's
    BUILDERS[f"{module}.set"] = BUILDERS[f"{module}.frozenset"] = lambda items: _add(set(), items)
for module in ("numpy.core", "numpy._core"):  # NumPy 1's and NumPy 2's
    BUILDERS[f"{module}.multiarray._reconstruct"] = lambda *empty: np.empty(0, np.uint8)
    BUILDERS[f"{module}.multiarray.scalar"] = _scalar
    BUILDERS[f"{module}.numeric._frombuffer"] = _array
