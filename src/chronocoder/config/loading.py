"""How models are loaded."""

from typing import Final, Literal

from pydantic import Field, PositiveInt, model_validator

from chronocoder.settings import Settings

AS_SAVED: Final = "auto"
NONE: Final = "none"
HALF = ("bfloat16", "float16")
LOADED = ("model_dtype", "attention", "quantization")
"""What stores call the facts of how models were loaded."""


class LoadingSettings(Settings):
    """How the models of a suite, and those that its comparisons take from other suites, are loaded."""

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        AS_SAVED,
        description="Number format of weights and activations: `auto` is the one that the weights were saved in. Logits"
        " and all statistics are computed in float32 whatever it is. Of weights in `bfloat16` or `float16` all products"
        " are in that format, and `attribution.precision` changes nothing; attribution stops where rounding changes an"
        " effect by more than `attribution.smallest_effect`, and `float32` is the remedy. `harvest.dtype` is what"
        " activations are stored in, and no more.",
    )
    attention: Literal["auto", "eager", "sdpa", "flash_attention_2", "flex_attention"] = Field(
        "auto",
        description="Attention implementation, as transformers names them; `auto` leaves the choice to transformers."
        " `flash_attention_2` needs a GPU, the package flash-attn, and weights in `bfloat16` or `float16`.",
    )
    quantization: Literal["none", "8bit", "4bit"] = Field(
        NONE,
        description="Weights of the blocks' matrices in `8bit` (LLM.int8) or `4bit` (NF4), which needs the package"
        " bitsandbytes; embeddings stay in `dtype`.",
    )
    device_map: Literal["none", "auto"] = Field(
        NONE,
        description="`auto`: spread each model over the GPUs of the job, block by block, where it is larger than one;"
        " such jobs run as one process. Changes no result but by rounding.",
    )
    gpus: PositiveInt = Field(
        1, description="GPUs of each job that loads models; more than one with `device_map: auto` only."
    )

    @property
    def deciding(self) -> str:
        """What changes results, as JSON: device map and GPUs do not."""
        return self.model_dump_json(exclude={"device_map", "gpus"})

    @property
    def precision(self) -> str:
        """The number format, as far as the settings tell: empty where it is that of the saved weights."""
        return "" if self.dtype == AS_SAVED else self.dtype

    @property
    def differentiable(self) -> "LoadingSettings":
        """The same with weights in float32, which gradients and small changes of weights need, and not quantised."""
        attention = AS_SAVED if self.attention == "flash_attention_2" else self.attention
        return self.model_copy(update={"dtype": "float32", "quantization": NONE, "attention": attention})

    @model_validator(mode="after")
    def _flash_attention_has_half_precision(self) -> "LoadingSettings":
        if self.attention == "flash_attention_2" and self.dtype == "float32":
            raise ValueError(
                "attention flash_attention_2: computes no dtype float32; set dtype to bfloat16 or float16, or attention"
                " to sdpa"
            )
        return self

    @model_validator(mode="after")
    def _gpus_are_used(self) -> "LoadingSettings":
        if self.gpus > 1 and self.device_map == NONE:
            raise ValueError(
                f"gpus {self.gpus}: a model is loaded on one of them; set device_map to auto, or gpus to 1"
            )
        return self
