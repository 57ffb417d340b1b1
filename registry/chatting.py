"""A talk with a loaded model: through the file's own template, never longer than its context."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from quantmint.errors import IntegrityError, UserError
from quantmint.registry.stops import TEMPLATE

# llama-cpp-python's name for the template of the file; it guesses a format of its own otherwise.
OWN_TEMPLATE: Final = "chat_template.default"


class Talk:
    """What both said so far. `report` gets lines for people."""

    def __init__(
        self,
        model: Any,  # noqa: ANN401 - a llama_cpp.Llama, which has no types
        *,
        max_tokens: int | None,
        heat: float,
        report: Callable[[str], None],
    ) -> None:
        self._model = model
        self._max_tokens = max_tokens
        self._heat = heat
        self._report = report
        self._formatter = _formatter(model)
        self._context = int(model.n_ctx())
        self._said: list[dict[str, str]] = []

    def ask(self, prompt: str) -> Iterator[str]:
        """Yield the pieces of the answer; the oldest turns are forgotten where room is short.

        Raises:
            UserError: the prompt alone is longer than the context.
            IntegrityError: the model's template does not render.
        """
        wanted = [*self._said, {"role": "user", "content": prompt}]
        said = self._newest(wanted)
        if len(said) < len(wanted):
            turns = (len(wanted) - len(said)) // 2
            self._report(
                f"the context of {self._context} tokens is full: the oldest"
                f" {turns} turn{'s' if turns > 1 else ''} of this talk were forgotten"
            )
        parts = []
        stream = self._model.create_chat_completion(
            messages=said, stream=True, max_tokens=self._max_tokens, temperature=self._heat
        )
        ended = None
        for event in stream:
            choice = event["choices"][0]
            ended = choice.get("finish_reason") or ended
            text = choice["delta"].get("content") or ""
            parts.append(text)
            yield text
        if ended == "length" and self._max_tokens is None:
            self._report("the context is full: the answer was cut; --context takes a longer one")
        self._said = [*said, {"role": "assistant", "content": "".join(parts)}]

    def _newest(self, said: list[dict[str, str]]) -> list[dict[str, str]]:
        """Return as many of the newest turns as leave room for an answer."""
        room = min(self._max_tokens or self._context, self._context // 4)
        for start in range(0, len(said), 2):
            tokens = self._tokens(said[start:])
            if tokens + room <= self._context:
                return said[start:]
        if tokens >= self._context:
            raise UserError(
                f"the prompt has {tokens} tokens, and the context holds {self._context} with the"
                " answer",
                mend="a longer --context, if the model was trained for it, or a shorter prompt",
            )
        return said[-1:]

    def _tokens(self, said: list[dict[str, str]]) -> int:
        try:
            prompt = self._formatter(messages=said).prompt
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - a template is a program, and raises what it likes
            raise template_fails(error) from None
        return len(self._model.tokenize(prompt.encode(), add_bos=False, special=True))


def template_fails(error: Exception) -> IntegrityError:
    """Return the error of a template that does not compile or render."""
    told = " ".join(str(error).split())[:200]
    return IntegrityError(
        f"the model's own chat template fails: {type(error).__name__}: {told}",
        mend="pull another release, or another publisher's file, of this model",
    )


def _formatter(model: Any) -> Any:  # noqa: ANN401
    """Return what the model's prompts are rendered by, to count their tokens beforehand."""
    from llama_cpp.llama_chat_format import Jinja2ChatFormatter

    def text(token: int) -> str:
        return "" if token == -1 else str(model._model.token_get_text(token))  # noqa: SLF001

    return Jinja2ChatFormatter(
        template=model.metadata[TEMPLATE], eos_token=text(model.token_eos()),
        bos_token=text(model.token_bos()),
    )  # fmt: skip
