"""What the stages need to know of a model: where it comes from, what is made, what it must pass.

The defaults of a model file have their one home here.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from quantmint import names
from quantmint.errors import QuantmintError
from quantmint.native.ftypes import FTYPES, ftype
from quantmint.native.kernels import kernel_named

_REPO: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
_REVISION: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,127}")


class Strict(BaseModel):
    """Frozen, and refuses what it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def _known_variant(name: str) -> str:
    try:
        return ftype(name).name
    except QuantmintError as error:
        raise ValueError(error.what) from None


Variant = Annotated[str, AfterValidator(_known_variant)]


class PackageFile(Strict):
    """A file inside an installed Python package."""

    package: str
    file: str


class Source(Strict):
    """Where the weights come from: exactly one of `hub`, `path`, `gguf` and `embedded`."""

    hub: str | None = None
    revision: str = "main"
    path: str | None = None
    gguf: str | PackageFile | None = None
    embedded: Literal["phi-3-nano"] | None = None
    requantize: bool = False

    @field_validator("hub")
    @classmethod
    def _repo(cls, value: str | None) -> str | None:
        if value is not None and _REPO.fullmatch(value) is None:
            raise ValueError(f"{value[:120]!r} is no Hub repository; write it as owner/name")
        return value

    @field_validator("revision")
    @classmethod
    def _rev(cls, value: str) -> str:
        if _REVISION.fullmatch(value) is None or ".." in value:
            raise ValueError(f"{value[:130]!r} is no branch, tag or commit")
        return value

    @model_validator(mode="after")
    def _exactly_one(self) -> Source:
        given = [key for key in ("hub", "path", "gguf", "embedded") if getattr(self, key)]
        if len(given) != 1:
            raise ValueError(
                f"a source is exactly one of hub, path, gguf and embedded; given: {given or 'none'}"
            )
        return self

    @property
    def kind(self) -> str:
        """`hub`, `path`, `gguf` or `embedded`."""
        return next(key for key in ("hub", "path", "gguf", "embedded") if getattr(self, key))

    @property
    def shown(self) -> str:
        """The source in one phrase, for lists."""
        if isinstance(self.gguf, PackageFile):
            return f"package {self.gguf.package}"
        if self.hub:
            return self.hub if self.revision == "main" else f"{self.hub}@{self.revision}"
        return self.gguf or self.path or f"embedded {self.embedded}"


class Assay(Strict):
    """What the variants are tested with.

    `text` is `default` (embedded, held out from calibration) or a path; `contexts` count tokens,
    the first one is used by the smoke test; `chunks` bounds how much of the text is read;
    `format` serves models without a chat template and holds `{prompt}`.
    """

    text: str = "default"
    contexts: tuple[Annotated[int, Field(ge=64, le=1 << 20)], ...] = (512,)
    chunks: Annotated[int, Field(ge=2, le=10_000)] = 24
    kernels: Literal["host"] | tuple[str, ...] = "host"
    prompt: str = "Can you introduce .NET"
    format: str = "{prompt}"
    gpu_layers: Annotated[int, Field(ge=0, le=999)] = 0

    @field_validator("contexts")
    @classmethod
    def _some(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if not value:
            raise ValueError("name at least one context length")
        return value

    @field_validator("kernels")
    @classmethod
    def _known(cls, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        # Only the names: a model file holds on machines that can't run all of its kernels.
        for name in () if value == "host" else value:
            try:
                kernel_named(name)
            except QuantmintError as error:
                raise ValueError(error.what) from None
        return value

    @field_validator("format")
    @classmethod
    def _holds_prompt(cls, value: str) -> str:
        if value.count("{prompt}") != 1 or re.search(r"[{}]", value.replace("{prompt}", "")):
            raise ValueError("format must hold {prompt} once, and no other brace")
        return value


# The worst perplexity ratio to FP16 that a variant may have, by its nominal bits per weight.
# From the published ladders of models of 1 to 8 billion weights, with room for small ones.
PPL_RATIO: Final = ((8.0, 1.02), (6.0, 1.05), (5.0, 1.08), (4.2, 1.2), (3.5, 1.5), (2.9, 2.5))
PPL_RATIO_BELOW: Final = 5.0


class Gates(Strict):
    """What a variant must pass. A ratio given here holds for every variant."""

    max_ppl_ratio: Annotated[float, Field(gt=1.0)] | None = None
    max_fallback_tensors: Annotated[int, Field(ge=0)] = 0
    chat: bool = True

    def ppl_ratio(self, variant: str) -> float:
        """Return the largest perplexity, relative to FP16, that `variant` may have."""
        if self.max_ppl_ratio is not None:
            return self.max_ppl_ratio
        bits = FTYPES[variant].bits
        return next((ratio for least, ratio in PPL_RATIO if bits >= least), PPL_RATIO_BELOW)


DEFAULT_VARIANTS: Final = (
    "Q8_0", "Q6_K", "Q5_K_M", "Q5_K_S", "Q4_K_M", "Q4_K_S", "IQ4_XS", "Q3_K_M", "Q2_K",
)  # fmt: skip


class Recipe(Strict):
    """One model: what is fetched, what is made of it, what it must pass."""

    model: Annotated[str, Field(max_length=names.LONGEST)]
    title: Annotated[str, Field(max_length=names.LONGEST)] = ""
    source: Source
    family: str | None = None
    parameters: Annotated[int, Field(gt=0)] | None = None
    imatrix: None = None
    variants: tuple[Variant, ...] = DEFAULT_VARIANTS
    assay: Assay = Assay()
    gates: Gates = Gates()

    @field_validator("model")
    @classmethod
    def _model_name(cls, value: str) -> str:
        if names.MODEL.fullmatch(value) is None:
            raise ValueError(f"{value!r} is no model name: lower case, digits and single . _ -")
        return value

    @field_validator("imatrix", mode="before")
    @classmethod
    def _not_yet(cls, value: object) -> None:
        if value is not None:
            raise ValueError("this version makes no importance matrix: leave the key out")

    @field_validator("variants")
    @classmethod
    def _distinct(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        twice = {name for name in value if value.count(name) > 1}
        if twice or not value:
            raise ValueError(f"variants stand twice: {sorted(twice)}" if twice else "no variants")
        return value

    @model_validator(mode="before")
    @classmethod
    def _title_from_source(cls, value: Any) -> Any:  # noqa: ANN401
        """The public name is the upstream's own unless the model file says another."""
        if isinstance(value, dict) and not value.get("title"):
            source = value.get("source")
            hub = source.get("hub") if isinstance(source, dict) else None
            title = hub.rpartition("/")[2] if isinstance(hub, str) else value.get("model")
            return {**value, "title": title}
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        if names.TITLE.fullmatch(self.title) is None:
            raise ValueError(f"title {self.title!r} is no file name: letters, digits and . _ -")
        needy = [name for name in self.variants if FTYPES[name].needs_imatrix]
        if needy:
            raise ValueError(
                f"{', '.join(needy)} can't be made without an importance matrix, and this version "
                "makes none: `quantmint quantize --imatrix` takes one made elsewhere"
            )
        return self

    def file_name(self, variant: str) -> str:
        """Return the public file name of a variant, as resolvers on the Hub expect it."""
        return f"{self.title}-{variant}.gguf"
