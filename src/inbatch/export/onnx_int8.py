"""An ONNX file in 8 bits, under the names and with the settings of sentence-transformers.

Its `export_dynamic_quantized_onnx_model` takes the settings of Optimum's `AutoQuantizationConfig`: weights
with one scale a channel, activations with one scale a tensor, found anew at each call (dynamic), so that no
texts are needed for it.
"""

from __future__ import annotations

from pathlib import Path

from inbatch.export.onnx_file import without_notices

# Whether weights are signed. AVX2 adds pairs of products in 16 bits, where those of signed ones may overflow.
CPUS = {"avx2": False, "avx512": True, "avx512_vnni": True, "arm64": True}


def int8_file(cpu: str) -> str:
    """The name of the file for a processor, one of `CPUS`."""
    return f"model_{'qint8' if CPUS[cpu] else 'quint8'}_{cpu}.onnx"


def write_int8(float32: Path, cpu: str) -> Path:
    """Write the file of a processor beside that in float32, and return its path.

    Args:
        float32: what `write_onnx` has written.
        cpu: one of `CPUS`.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    path = float32.with_name(int8_file(cpu))
    with without_notices():
        quantize_dynamic(
            float32,
            path,
            per_channel=True,
            weight_type=QuantType.QInt8 if CPUS[cpu] else QuantType.QUInt8,
            extra_options={"WeightSymmetric": True, "ActivationSymmetric": False},
        )
    return path
