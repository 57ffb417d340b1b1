"""What the stages need to know of a model: where it comes from, what is made, what it must pass.

The defaults of a model file have their one home here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
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


def hub_repository(value: str | None) -> str | None:
    """Return the name of a Hub repository if it is one."""
    if value is not None and _REPO.fullmatch(value) is None:
        raise ValueError(f"{value[:120]!r} is no Hub repository; write it as owner/name")
    return value


def hub_revision(value: str) -> str:
    """Return the name of a branch, a tag or a commit if it can be one."""
    if _REVISION.fullmatch(value) is None or ".." in value:
        raise ValueError(f"{value[:130]!r} is no branch, tag or commit")
    return value


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

    _repo = field_validator("hub")(hub_repository)
    _rev = field_validator("revision")(hub_revision)

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


class TextFile(Strict):
    """A text out of a Hub repository (`hub`, at a revision) or out of an installed package."""

    hub: str | None = None
    kind: Literal["dataset", "model"] = "dataset"
    revision: str = "main"
    package: str | None = None
    file: Annotated[str, Field(min_length=1, max_length=1024)]

    _repo = field_validator("hub")(hub_repository)
    _rev = field_validator("revision")(hub_revision)

    @model_validator(mode="after")
    def _exactly_one(self) -> TextFile:
        if (self.hub is None) == (self.package is None):
            raise ValueError("a text is in exactly one of hub and package")
        return self


class Imatrix(Strict):
    """How the importance matrix is made: from the first `chunks` chunks of `context` tokens.

    `text` is `default` (embedded, no line of it in the assay's text), a path, or a `TextFile`.
    A shorter text is read to its end.
    """

    text: str | TextFile = "default"
    chunks: Annotated[int, Field(ge=1, le=100_000)] = 128
    context: Annotated[int, Field(ge=64, le=1 << 16)] = 512


class Assay(Strict):
    """What the variants are tested with.

    `text` is `default` (embedded, held out from calibration) or a path; `contexts` count tokens
    (a LongRoPE model is measured at both sides of its switch whatever they are); `chunks` bounds
    how much of the text is read; `tasks` says whether the bundled multiple-choice sets are asked;
    `format` serves models without a chat template and holds `{prompt}`. `kernels` is `best` (this
    machine's best one), `host` (all that it can run) or a list of names; quality is measured on
    the last of them, agreement and speed on each.
    """

    text: str = "default"
    contexts: tuple[Annotated[int, Field(ge=64, le=1 << 20)], ...] = (512,)
    chunks: Annotated[int, Field(ge=2, le=10_000)] = 24
    tasks: bool = True
    kernels: Literal["best", "host"] | tuple[str, ...] = "best"
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
        for name in () if isinstance(value, str) else value:
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What a variant of at least `bits` per weight must keep of FP16's predictions."""

    bits: float
    ppl_ratio: float
    kld: float
    top1: float
    task_drop: float


# From the published ladders of models of 0.1 to 8 billion weights, with room for small ones: a
# broken file misses these by far. `task_drop` is a share of the items.
BOUNDS: Final = (
    Bounds(bits=8.0, ppl_ratio=1.02, kld=0.02, top1=0.94, task_drop=0.05),
    Bounds(bits=6.0, ppl_ratio=1.05, kld=0.05, top1=0.9, task_drop=0.06),
    Bounds(bits=5.0, ppl_ratio=1.08, kld=0.1, top1=0.86, task_drop=0.08),
    Bounds(bits=4.2, ppl_ratio=1.2, kld=0.25, top1=0.8, task_drop=0.1),
    Bounds(bits=3.5, ppl_ratio=1.5, kld=0.5, top1=0.7, task_drop=0.15),
    Bounds(bits=2.9, ppl_ratio=2.5, kld=0.9, top1=0.6, task_drop=0.2),
    Bounds(bits=0.0, ppl_ratio=5.0, kld=1.6, top1=0.45, task_drop=0.3),
)


class Gates(Strict):
    """What a variant must pass. A bound given here holds for every variant.

    `max_ppl_ratio`, `max_kld` (mean, in nats) and `min_top1` compare with FP16 at each context;
    `max_task_drop` is the share of task items that may be lost beyond chance; `max_logits_nmse`
    bounds how far kernels may differ from the reference kernel on the same file.
    `max_source_nmse` and `min_source_top1` compare the FP16 file's logits with transformers';
    their defaults were measured on every Phi architecture (docs/conversion.md).
    """

    max_ppl_ratio: Annotated[float, Field(gt=1.0)] | None = None
    max_kld: Annotated[float, Field(gt=0.0)] | None = None
    min_top1: Annotated[float, Field(gt=0.0, lt=1.0)] | None = None
    max_task_drop: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    max_logits_nmse: Annotated[float, Field(gt=0.0)] = 1e-3
    max_source_nmse: Annotated[float, Field(gt=0.0)] = 1e-4
    min_source_top1: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.9
    max_fallback_tensors: Annotated[int, Field(ge=0)] = 0
    chat: bool = True

    @property
    def source_bounds(self) -> tuple[float, float]:
        """What the FP16 file's logits must keep of the source's: largest error, least top-1."""
        return (self.max_source_nmse, self.min_source_top1)

    def bounds(self, variant: str) -> Bounds:
        """Return what `variant` must keep: these gates', else the defaults for its bits."""
        usual = next(row for row in BOUNDS if FTYPES[variant].bits >= row.bits)
        return Bounds(
            bits=usual.bits,
            ppl_ratio=self.max_ppl_ratio or usual.ppl_ratio,
            kld=self.max_kld or usual.kld,
            top1=self.min_top1 or usual.top1,
            task_drop=self.max_task_drop or usual.task_drop,
        )


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
    imatrix: Imatrix | None = None
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
    def _shorthand(cls, value: object) -> object:
        """`true` and `default` stand for the defaults, `false` for none."""
        if value is True or value == "default":
            return Imatrix()
        return None if value is False else value

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
        if needy and self.imatrix is None:
            raise ValueError(
                f"{', '.join(needy)} can't be made without an importance matrix: "
                "add `imatrix: default`, or name a calibration text (docs/models.md)"
            )
        return self

    def file_name(self, variant: str) -> str:
        """Return the public file name of a variant, as resolvers on the Hub expect it."""
        return f"{self.title}-{variant}.gguf"

    @property
    def imatrix_name(self) -> str:
        """The public file name of the importance matrix."""
        return f"{self.title}-imatrix.gguf"
