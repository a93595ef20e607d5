"""Olive's fine-tuning passes, fed with the tokenised corpus and followed while they train.

The passes are Olive's own; what they need beyond their configuration is overridden where they offer a method for it.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from phi3_assets.olive.configs import PASSES
from phi3_assets.olive.corpus import CorpusRows
from phi3_assets.training.attention import use
from phi3_assets.training.batches import Attending, collate
from phi3_assets.training.trainer import corpus_trainer


def training_pass(
    method: str,
    target_modules: list[str],
    attention: str,
    callback: Any,
    dry_run: Callable[[Any, int], None] | None = None,
    eval_rows: CorpusRows | None = None,
) -> Any:
    """Derive a pass from Olive's for one run.

    Args:
        method: A key of `PASSES`.
        target_modules: Linear layers that get an adapter.
        attention: What `phi3_assets.training.attention.chosen` returned.
        callback: A transformers TrainerCallback that follows the training.
        dry_run: Called before the training with the model, as it will be trained, and the padding token's id.
        eval_rows: Held-out rows to evaluate on while it trains, where the configuration says when.

    Returns:
        A subclass of Olive's pass with the same parameters.
    """
    from olive.passes.pytorch import lora

    base = getattr(lora, PASSES[method])

    class CorpusPass(base):  # type: ignore[misc, valid-type]
        """Olive's pass on the rows of the corpus."""

        def enable_lora(self, model: Any, config: Any, *args: Any, **kwargs: Any) -> Any:
            from phi3_assets.training.dropout import draw_less

            # QLoRA has just overwritten them with every 4-bit layer.
            config.target_modules = target_modules
            use(model, attention)
            adapted = super().enable_lora(model, config, *args, **kwargs)
            draw_less(adapted)
            # Olive sets it to False for https://github.com/huggingface/transformers/issues/35838, fixed since. With
            # False, accumulated batches are averaged as if each had as many supervised tokens as the others.
            model.accepts_loss_kwargs = True
            model.config.use_cache = False
            return adapted

        def train_and_save_new_model(
            self, model: Any, tokenizer: Any, config: Any, output_model: Any, output_model_path: str
        ) -> Any:
            """Train and save, as Olive's own method does, but with our Trainer.

            Olive's (0.13.0) builds a `transformers.Trainer` and takes neither callbacks nor another class. What it does
            beside is repeated here as far as it applies: float16 and a temporary output_dir do not.
            """
            import torch
            from transformers.trainer_utils import get_last_checkpoint

            if dry_run is not None:
                dry_run(model, tokenizer.pad_token_id)
            # Olive copies every row through Dataset.from_generator into the user's Hugging Face cache, at 1.3 k rows/s.
            data = config.train_data_config.to_data_container()
            torch.backends.cuda.matmul.allow_tf32 = config.allow_tf32
            checkpoints = Path(config.training_args.output_dir)
            trainer = corpus_trainer(
                callback,
                model=model,
                args=config.training_args.create_training_args(),
                train_dataset=data.pre_process(data.load_dataset()),
                eval_dataset=eval_rows,
                data_collator=partial(
                    collate,
                    pad_token_id=tokenizer.pad_token_id,
                    model=Attending.of(model.config, model.dtype, attention),
                ),
            )
            trainer.train(resume_from_checkpoint=get_last_checkpoint(checkpoints) if checkpoints.exists() else None)
            adapter = Path(output_model_path) / "adapter"
            # No embeddings, whatever PEFT makes of the size of the vocabulary: they were not trained.
            model.save_pretrained(adapter, save_embedding_layers=False)
            output_model.set_resource("adapter_path", adapter)
            return output_model

    CorpusPass.__name__ = f"Corpus{base.__name__}"
    return CorpusPass
