"""The tables people see."""

from phi3_assets.evaluation.present import markdown_table, text_table

VARIANTS = {
    "base": {"nll": 4.5387, "exact_match": 0.0, "tokens_per_s": 15.1, "bytes": 541_616_410},
    "int4": {"nll": 0.6, "exact_match": 0.875, "tokens_per_s": 112.0, "bytes": 2_032_827_160, "chrf": 0.5},
}


def test_markdown_table():
    assert markdown_table(VARIANTS).splitlines() == [
        "| Variant | NLL | Exact match | chrF | Tokens/s | Size |",
        "| :-- | --: | --: | --: | --: | --: |",
        "| base | 4.539 | 0.0 % | - | 15.1 | 541.6 MB |",
        "| int4 (ONNX) | 0.600 | 87.5 % | 50.0 % | 112.0 | 2.03 GB |",
    ]


def test_text_table_is_aligned_and_brief():
    assert text_table(VARIANTS).splitlines() == [
        "Variant        NLL  Exact match  Tokens/s      Size",
        "---------------------------------------------------",
        "base         4.539        0.0 %      15.1  541.6 MB",
        "int4 (ONNX)  0.600       87.5 %     112.0   2.03 GB",
    ]
