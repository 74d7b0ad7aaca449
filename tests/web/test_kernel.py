"""The kernel: the committed bytes are those of the text, and its products are right."""

import numpy as np
import pytest
import wasmtime
import web_files

from llmtutor.web.engine import kernel as committed


def test_the_committed_bytes_are_assembled_from_the_text() -> None:
    assert web_files.assembled() == committed()


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 9])
@pytest.mark.parametrize("cols", [1, 3, 4, 6, 8, 21])
def test_a_product_is_numpys_and_nothing_else_is_written(rows: int, cols: int) -> None:
    store = wasmtime.Store()
    memory = wasmtime.Memory(store, wasmtime.MemoryType(wasmtime.Limits(1, None)))
    module = wasmtime.Module(store.engine, committed())
    matvec = wasmtime.Instance(store, module, [memory]).exports(store)["matvec"]
    random, stride = np.random.default_rng(rows * 100 + cols), cols + 2
    matrix = random.standard_normal((rows, stride)).astype(np.float32)
    x = random.standard_normal(cols).astype(np.float32)
    y_at, w_at, x_at = 64, 1024, 8192
    memory.write(store, np.full(rows + 8, 7, np.float32).tobytes(), y_at - 16)
    memory.write(store, matrix.tobytes(), w_at)
    memory.write(store, x.tobytes(), x_at)
    matvec(store, y_at, w_at, x_at, rows, cols, 4 * stride)
    found = np.frombuffer(memory.read(store, y_at - 16, y_at + 4 * (rows + 4)), np.float32)
    expected = matrix[:, :cols].astype(np.float64) @ x.astype(np.float64)
    np.testing.assert_allclose(found[4:-4], expected, rtol=1e-5, atol=1e-5)
    assert (found[:4] == 7).all() and (found[-4:] == 7).all()
