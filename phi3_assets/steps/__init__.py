"""The steps, in the order of the graph. Each name is also its artefact's, and that of an asset but for the last.

Only this table is read while the code location loads; the functions are imported by the worker. Which recipe fields
belong to a step is said in `phi3_assets.core.recipe`, field by field.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from phi3_assets.core.errors import UserError, nearest
from phi3_assets.core.files import DATASETS
from phi3_assets.core.home import SAMPLE
from phi3_assets.core.shown import Shown
from phi3_assets.core.step import Step, UserFolder
from phi3_assets.core.web_address import LINEAGE, REPORT

if TYPE_CHECKING:  # a worker reads this table, and need not import pydantic
    from phi3_assets.core.recipe import Recipe


def _datasets(recipe: "Recipe") -> str:
    return recipe.dataset_path


def _base_model_directory(recipe: "Recipe") -> str | None:
    from phi3_assets.core.recipe_data import is_hub_id

    return None if ":" in recipe.base_model or is_hub_id(recipe.base_model) else _absolute(recipe.base_model)


def _adapter_directory(recipe: "Recipe") -> str | None:
    return _absolute(recipe.adapter_path) if recipe.adapter_path else None


def _harder_questions(recipe: "Recipe") -> str | None:
    if recipe.harder_questions == "sample":
        return str(SAMPLE / "harder")
    return _absolute(recipe.harder_questions) if recipe.harder_questions else None


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().absolute())


HARDER = "harder_questions"
"""Name of an input of eval_report, where there are any."""

# What `phi3_assets.evaluation.gate.read_evaluation` reads.
EVALUATION_FILES = ("scores.json", "items.jsonl")

RAW_DATASET = Step(
    name="raw_dataset",
    code_version="8",
    inputs=(),
    reads=(UserFolder(DATASETS, "Dataset folder", _datasets),),
    reads_test_sets=True,
    libraries=(
        "charset-normalizer",
        "detect-secrets",
        "ijson",
        "numpy",
        "openpyxl",
        "orjson",
        "phonenumbers",
        "pyarrow",
        "python-calamine",
        "python-stdnum",
        "rensa",
    ),
    function="phi3_assets.steps.ingest:ingest",
    rules="phi3_assets.data.judge.rules:judge_dataset",
    folder="fine-tuning",
    without_pandas=True,
    row_count="rows_kept",
    shows=(
        Shown(
            "Files",
            "table",
            metric="files",
            columns=(
                ("file", "file"),
                ("rows", "rows"),
                ("quarantined", "rows in quarantine, by reason"),
                ("problem", "problem"),
                ("shape", "shape"),
                ("encoding", "encoding"),
                ("format", "format"),
            ),
        ),
        Shown(
            "Preview",
            "table",
            metric="preview",
            columns=(
                ("question", "question"),
                ("answer", "answer"),
                ("split", "split"),
                ("file", "file"),
                ("row", "row"),
            ),
        ),
        Shown("Quarantined", "counts", metric="quarantined_by_reason", words=("reason", "rows")),
    ),
)
BASE_MODEL = Step(
    name="base_model",
    code_version="2",
    inputs=(),
    reads=(UserFolder("base_model_directory", "Base model directory", _base_model_directory),),
    libraries=("gguf", "huggingface_hub", "numpy", "safetensors", "tokenizers", "torch", "transformers"),
    function="phi3_assets.steps.base:fetch_base_model",
    rules="phi3_assets.models.rules:judge_base_model",
    folder="model-cache",
    imports_torch=True,
    reads_hub=True,
)
FORMATTED_CORPUS = Step(
    name="formatted_corpus",
    code_version="4",
    inputs=("raw_dataset", "base_model"),
    libraries=("jinja2", "numpy", "orjson", "pyarrow", "tokenizers"),
    function="phi3_assets.steps.corpus:format_corpus",
    rules="phi3_assets.data.tokens.rules:judge_corpus",
    folder="fine-tuning",
    without_pandas=True,
    row_count="train_rows",
    shows=(
        Shown("What is learnt", "learnt", metric="masked_preview", words=("learnt text is on yellow",)),
        Shown("Length of training rows", "histogram", metric="length_histogram"),
        Shown("length percentiles, tokens", "json", metric="length_percentiles_tokens"),
    ),
)
LORA_ADAPTER = Step(
    name="lora_adapter",
    code_version="7",
    inputs=("base_model", "formatted_corpus"),
    reads=(UserFolder("adapter_directory", "Adapter directory", _adapter_directory),),
    libraries=(
        "accelerate",
        "bitsandbytes",
        "datasets",
        "matplotlib",
        "numpy",
        "olive-ai",
        "peft",
        "safetensors",
        "torch",
        "transformers",
    ),
    function="phi3_assets.steps.finetune:train_lora",
    rules="phi3_assets.training.rules:judge_adapter",
    folder="gen-model",
    imports_torch=True,
    on_device=True,
    resumes=True,
    data_parallel=True,
    shows=(  # an adapter that was brought, or that changes nothing, has no such file
        Shown("Loss curve", "curve", file="history.json", words=("training loss",)),
        Shown(
            "Loss by step",
            "table",
            file="history.json",
            columns=(
                ("step", "step"),
                ("loss", "loss, nats/token"),
                ("epoch", "epoch"),
                ("learning_rate", "learning rate"),
                ("grad_norm", "gradient norm"),
            ),
        ),
    ),
    derived=("train_batch_rows",),
)
MERGED_MODEL = Step(
    name="merged_model",
    code_version="4",
    inputs=("base_model", "lora_adapter"),
    libraries=("bitsandbytes", "olive-ai", "peft", "safetensors", "torch", "transformers"),
    function="phi3_assets.steps.merge:merge_adapter",
    rules="phi3_assets.models.rules:judge_merged_model",
    folder="gen-model",
    imports_torch=True,
    on_device=True,
)
ONNX_INT4_MODEL = Step(
    name="onnx_int4_model",
    code_version="9",
    # The corpus calibrates int4_algorithm gptq, and recovers; with it the texts that lie beside the adapter.
    inputs=("merged_model", "formatted_corpus", "lora_adapter"),
    libraries=(
        "numpy",
        "olive-ai",
        "onnx",
        "onnx-ir",
        "onnxruntime",
        "onnxruntime-genai",
        "onnxscript",
        "tokenizers",
        "torch",
        "transformers",
    ),
    function="phi3_assets.steps.quantize:build_int4",
    rules="phi3_assets.quantising.rules:judge_int4",
    folder="gen-model",
    imports_torch=True,
    on_device=True,
    resumes=True,
)
EVAL_REPORT = Step(
    name="eval_report",
    code_version="9",
    inputs=("formatted_corpus", "base_model", "lora_adapter", "merged_model", "onnx_int4_model"),
    reads=(UserFolder(HARDER, "Folder of harder questions", _harder_questions),),
    libraries=(
        "bitsandbytes",
        "jinja2",
        "markupsafe",
        "matplotlib",
        "numpy",
        "onnxruntime",
        "onnxruntime-genai",
        "peft",
        "pyarrow",
        "pyyaml",
        "scipy",
        "tokenizers",
        "torch",
        "torchmetrics",
        "transformers",
    ),
    function="phi3_assets.steps.evaluate:evaluate_variants",
    reads_manifests=True,
    folder="gen-model",
    imports_torch=True,
    on_device=True,
    shows=(
        Shown("report page", "page", page=REPORT),
        Shown("Chart of scores", "chart", metric="variants", words=("scores of the four variants",)),
        Shown("Comparison", "scores", metric="variants"),
        Shown("plot with 95 % intervals", "image", file="scores.png", words=("scores of the four variants",)),
        Shown("report", "path", file="report.html"),
    ),
    rules="phi3_assets.evaluation.gate:judge_report",
    rules_read=EVALUATION_FILES,
)
RELEASE_BUNDLE = Step(
    name="release_bundle",
    code_version="9",
    inputs=("base_model", "onnx_int4_model", "eval_report"),
    libraries=(
        "cyclonedx-python-lib",
        "huggingface_hub",
        "jinja2",
        "numpy",
        "onnxruntime",
        "onnxruntime-genai",
        "packageurl-python",
        "pyyaml",
        "scipy",
    ),
    function="phi3_assets.steps.release:bundle_release",
    rules="phi3_assets.release.rules:judge_bundle",
    reads_manifests=True,
    folder="gen-model",
    shows=(
        Shown("lineage page", "page", page=LINEAGE),
        Shown("Model card", "markdown", file="MODEL_CARD.md"),
    ),
)

STEPS = {
    step.name: step
    for step in (
        RAW_DATASET,
        BASE_MODEL,
        FORMATTED_CORPUS,
        LORA_ADAPTER,
        MERGED_MODEL,
        ONNX_INT4_MODEL,
        EVAL_REPORT,
        RELEASE_BUNDLE,
    )
}

# What the asset champion has made when it decides: no asset, but an artefact like all others.
CHAMPION_COMPARISON = Step(
    name="champion_comparison",
    code_version="3",
    inputs=("formatted_corpus", "base_model", "onnx_int4_model"),
    libraries=EVAL_REPORT.libraries,
    function="phi3_assets.steps.compare:compare_with_champion",
    progress_of="champion",
    folder="gen-model",
    imports_torch=True,
    on_device=True,
)
ALL_STEPS = {**STEPS, CHAMPION_COMPARISON.name: CHAMPION_COMPARISON}
# What an evaluation of models side by side is read from.
COMPARISON_FILES = (*EVALUATION_FILES, "speed.json")


def step_of(kind: str) -> Step:
    """The step that makes artefacts of this kind.

    Raises:
        UserError: No step of this version does.
    """
    if kind not in ALL_STEPS:
        raise UserError(f"No step makes a {kind!r}.{nearest(kind, list(STEPS))} The steps: {', '.join(STEPS)}.")
    return ALL_STEPS[kind]
