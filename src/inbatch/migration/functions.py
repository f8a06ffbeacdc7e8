"""Functions of sentence-transformers for a model that is trained, and the commands that do the same."""

from __future__ import annotations

#: What sentence-transformers calls it: what does it here.
HERE = {
    "SentenceTransformer.save_pretrained": "every run writes `output_dir/model`",
    "SentenceTransformer.push_to_hub": "`inbatch push MODEL_OR_RUN OWNER/NAME --yes`",
    "SentenceTransformerModelCardData": "every run writes its card, `card.*` names what it cannot know; "
    "`inbatch card RUN_DIR` writes it again",
    'SentenceTransformer(..., backend="onnx")': "`inbatch export MODEL_OR_RUN --onnx` writes its file",
    "export_dynamic_quantized_onnx_model": "`inbatch export MODEL_OR_RUN --onnx --int8 --cpu NAME`",
    "mine_hard_negatives": "`inbatch mine`",
    "resolve_ids": "`data.train` takes files of ids, and finds the texts beside them",
    "quantize_embeddings": "`inbatch embed dtype=...`, `evaluation.quantisations`",
    "SentenceTransformer.encode_multi_process": "`inbatch embed trainer.devices=N`",
}

REFUSED = {
    "export_optimized_onnx_model": "onnxruntime optimizes the graph when it loads the file",
    "export_static_quantized_openvino_model": "there is no OpenVINO here; sentence-transformers exports "
    "`output_dir/model`",
}
