"""Olive's fine-tuning passes, fed with the tokenised corpus and watched while they train.

The passes are Olive's own; what they need beyond their configuration is overridden where they offer a method for it.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from phi3_assets.olive.batches import collate
from phi3_assets.olive.corpus import CorpusRows

PASSES = {"lora": "LoRA", "dora": "DoRA", "qlora": "QLoRA"}


def training_pass(
    method: str, target_modules: list[str], watcher: Any, rehearse: Callable[[Any, int], None] = lambda *_: None
) -> Any:
    """Derive a pass from Olive's for one run.

    Args:
        method: A key of `PASSES`.
        target_modules: Linear layers that get an adapter.
        watcher: A transformers TrainerCallback that follows the training.
        rehearse: Called before the training with the model, as it will be trained, and the token id that fills rows.

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

        def collate_batch(self, batch: list[dict[str, Any]], tokenizer: Any) -> dict[str, Any]:
            return collate(batch, tokenizer.pad_token_id, self.hidden_size, self.dtype)

        def enable_lora(self, model: Any, config: Any, *args: Any, **kwargs: Any) -> Any:
            # QLoRA has just overwritten them with every 4-bit layer.
            config.target_modules = target_modules
            adapted = super().enable_lora(model, config, *args, **kwargs)
            # Olive sets it to False for https://github.com/huggingface/transformers/issues/35838, fixed since. With
            # False, accumulated batches are averaged as if each had as many supervised tokens as the others.
            model.accepts_loss_kwargs = True
            model.config.use_cache = False
            self.hidden_size, self.dtype = model.config.hidden_size, model.dtype
            return adapted

        def train_and_save_new_model(self, model: Any, tokenizer: Any, *args: Any, **kwargs: Any) -> Any:
            rehearse(model, tokenizer.pad_token_id)
            with progress_callback(watcher):
                return super().train_and_save_new_model(model, tokenizer, *args, **kwargs)

    CorpusPass.__name__ = f"Corpus{base.__name__}"
    return CorpusPass


@contextmanager
def progress_callback(watcher: Any) -> Iterator[None]:
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
