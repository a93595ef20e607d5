"""Olive's MergeAdapterWeights, tensor by tensor: in memory is one shard of the merged model, whatever its size."""

from pathlib import Path
from typing import Any

from phi3_assets.models.merging import Merge


def merging_pass(merge: Merge) -> Any:
    """Olive's pass, for base models and adapters of any size; in float32 the bytes are those that Olive's own writes.

    Olive's loads the whole base model and lets PEFT merge it in place. Here PEFT merges each layer by itself, in
    float32, and halves are rounded once, see `Merge.write`.

    Args:
        merge: Of the base model and the adapter that the pass will be handed.
    """
    from olive.passes.pytorch.common import inherit_hf_from_hf
    from olive.passes.pytorch.merge_adapter_weights import MergeAdapterWeights

    class ShardedMerge(MergeAdapterWeights):  # type: ignore[misc]
        """Merge adapter weights into the base model, shard by shard."""

        def _run_for_config(self, model: Any, config: Any, output_model_path: str) -> Any:
            output = Path(output_model_path)
            if not merge.by_tensor:
                return super()._run_for_config(model, config, output_model_path)
            output.mkdir(parents=True, exist_ok=True)
            merge.write(output)
            model.save_metadata(output)
            return inherit_hf_from_hf(model, output_model_path, adapter_path=None)

    return ShardedMerge
