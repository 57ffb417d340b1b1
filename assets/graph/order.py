"""What a person may ask of one run: in the launchpad under `resources`, or on the command line."""

from collections.abc import Sequence
from typing import Final

import dagster as dg
from pydantic import Field

from quantmint.assets.graph.line import Line, reporter
from quantmint.assets.mint import Mint, open_mint
from quantmint.errors import UserError, nearest

ORDER: Final = "order"


class Order(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Which of the selected assets are meant, and whether work is done again."""

    variants: list[str] = Field(
        default=[],
        description="Only these variants of those selected: [Q4_K_M, Q8_0]. Empty: all of them.",
    )
    kernels: list[str] = Field(
        default=[],
        description="Only these kernels of those selected: [zen4]. Empty: all of them.",
    )
    force: bool = Field(
        default=False,
        description="Do the work again, whatever was made of the same inputs before.",
    )

    def mint(self, context: dg.AssetExecutionContext) -> Mint:
        """Open the mint for a step; with `force` nothing that was made before the run counts.

        Raises:
            UserError: the home folder can't be written.
        """
        if not self.force:
            return open_mint(reporter(context))
        record = context.instance.get_run_record_by_id(context.run.run_id)
        began = record.create_timestamp.timestamp() if record is not None else 0.0
        return open_mint(reporter(context), not_before=began)

    def wants_variant(self, line: Line, variant: str) -> bool:
        """Return whether that variant of the model is meant.

        Raises:
            UserError: the order names a variant that the model does not have.
        """
        _require_known("variant", self.variants, line.recipe.variants, line)
        return not self.variants or variant in self.variants

    def kernels_of(self, names: Sequence[str]) -> Sequence[str]:
        """Return those of the kernels themselves that are meant.

        Raises:
            UserError: the order names a kernel that the matrix does not have here.
        """
        for name in self.kernels:
            if name not in names:
                raise UserError(
                    f"there is no kernel {name!r} here{nearest(name, names)}",
                    mend="correct `resources: order: config: kernels:` in the launchpad",
                )
        return [name for name in names if not self.kernels or name in self.kernels]

    def wants_kernel(self, line: Line, kernel: str) -> bool:
        """Return whether that kernel is meant.

        Raises:
            UserError: the order names a kernel that the model is not tested on here.
        """
        _require_known("kernel", self.kernels, [k.name for k in line.kernels], line)
        return not self.kernels or kernel in self.kernels


def _require_known(kind: str, asked: Sequence[str], known: Sequence[str], line: Line) -> None:
    for name in asked:
        if name not in known:
            raise UserError(
                f"{line.recipe.model} has no {kind} {name!r}{nearest(name, known)}",
                mend=f"correct `resources: order: config: {kind}s:` in the launchpad",
            )
