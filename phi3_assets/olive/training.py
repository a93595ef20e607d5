"""Olive's fine-tuning passes, fed with the tokenised corpus and watched while they train.

The passes are Olive's own; what they need beyond their configuration is overridden where they offer a method for it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from phi3_assets.olive.corpus import IGNORED_LABEL, CorpusRows

PASSES = {"lora": "LoRA"}


def training_pass(method: str, watcher: Any) -> Any:
    """Derive a pass from Olive's for one run.

    Args:
        method: A key of `PASSES`.
        watcher: A transformers TrainerCallback that follows the training.

    Returns:
        A subclass of Olive's pass with the same parameters.
    """
    from olive.passes.pytorch import lora

    base = getattr(lora, PASSES[method])

    class CorpusPass(base):  # type: ignore[misc, valid-type]
        """Olive's pass on the rows of the corpus."""

        @staticmethod
        def get_datasets(config: Any) -> tuple[CorpusRows, None]:
            # Olive copies every row through Dataset.from_generator into the user's Hugging Face cache, at 1.3 k rows/s.
            container = config.train_data_config.to_data_container()
            return container.pre_process(container.load_dataset()), None

        @staticmethod
        def collate_batch(batch: list[dict[str, Any]], tokenizer: Any) -> dict[str, Any]:
            return collate(batch, tokenizer.pad_token_id)

        def enable_lora(self, model: Any, *args: Any, **kwargs: Any) -> Any:
            adapted = super().enable_lora(model, *args, **kwargs)
            # Olive sets it to False for https://github.com/huggingface/transformers/issues/35838, fixed since. With
            # False, accumulated batches are averaged as if each had as many supervised tokens as the others.
            model.accepts_loss_kwargs = True
            model.config.use_cache = False
            return adapted

        def train_and_save_new_model(self, model: Any, *args: Any, **kwargs: Any) -> Any:
            with _progress_callback(watcher):
                return super().train_and_save_new_model(model, *args, **kwargs)

    CorpusPass.__name__ = f"Corpus{base.__name__}"
    return CorpusPass


def collate(batch: list[dict[str, Any]], pad_token_id: int) -> dict[str, Any]:
    """Pad rows to the longest and ask the model for the logits that the loss needs, and no others.

    Rows are padded on the right and attention is causal, so no token sees padding and no mask is needed. With 49 k
    words the output layer is a fifth of the model's arithmetic; most positions belong to the prompt.

    Args:
        batch: Rows of `CorpusRows`.
        pad_token_id: Fills the input; filled positions have no label.

    Returns:
        input_ids and labels, int64 (rows, tokens); logits_to_keep, bool (rows, tokens), True where the next token is
        learnt; shift_labels, int64 (number of True,): that next token.
    """
    import torch
    from torch.nn.utils.rnn import pad_sequence

    input_ids = pad_sequence([row["input_ids"] for row in batch], batch_first=True, padding_value=pad_token_id)
    labels = pad_sequence([row["labels"] for row in batch], batch_first=True, padding_value=IGNORED_LABEL)
    following = torch.nn.functional.pad(labels[:, 1:], (0, 1), value=IGNORED_LABEL)
    keep = following != IGNORED_LABEL
    # What comes after the last position that predicts something is seen by none that does.
    width = int(keep.any(dim=0).nonzero().max()) + 1
    input_ids, labels, following, keep = (each[:, :width] for each in (input_ids, labels, following, keep))
    return {"input_ids": input_ids, "labels": labels, "logits_to_keep": keep, "shift_labels": following[keep]}


@contextmanager
def _progress_callback(watcher: Any) -> Iterator[None]:
    """Put `watcher` where transformers keeps the class of its progress bar, for as long as a trainer is built and run.

    Olive's pass builds the Trainer itself and takes no callbacks (0.13.0). This module variable is how transformers
    exchanges the bar for another in notebooks; `add_callback` takes an instance as well as a class.
    """
    from transformers import trainer

    kept = trainer.DEFAULT_PROGRESS_CALLBACK
    trainer.DEFAULT_PROGRESS_CALLBACK = watcher
    try:
        yield
    finally:
        trainer.DEFAULT_PROGRESS_CALLBACK = kept
