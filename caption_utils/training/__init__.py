"""From captions and features to a model folder."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "batches": ["CaptionBatches"],
        "checkpoint": ["Model", "load_model", "save_model"],
        "loss": ["caption_loss", "hard_loss"],
        "refinement": ["fine_tune_model", "refine_model"],
        "run": ["train_model", "train_on_all_gpus"],
        "self_critical": ["DrawnBatches", "Reward", "advantages", "refine", "self_critical_loss"],
        "trainer": ["fit"],
        "zoo": ["default_model", "model_folders"],
    },
)
