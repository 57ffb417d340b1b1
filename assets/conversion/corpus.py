"""Texts that tokenizers disagree on, and conversations that templates disagree on."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from typing import Final

from quantmint.assets.conversion.added import AddedToken

Message = dict[str, str]
MOST_TOKENS: Final = 512
LONGEST_RUN: Final = 64

PROSE: Final = (
    "The quick brown fox jumps over the lazy dog.",
    "Can you introduce .NET?",
    "don't I'LL they've WE'RE 3.5% $1,000.00 #tag @user http://a.b/c?d=e&f",
    "naïve café, Straße, žluťoučký kůň, ÅÄÖ, ÆØÅ, ıİ, ſ, ǅ",
    "Привет, мир. Съешь же ещё этих мягких французских булок, да выпей чаю",
    "你好,世界。今天天气很好!我们去公园吧。漢字假名 龘靐齉",
    "こんにちは世界 カタカナ ﾊﾝｶｸ 안녕하세요 세계 ㄱㄴㄷ",
    "שלום עולם! מה שלומך היום? مرحبا بالعالم، كيف حالك؟ \u200fabc\u200e ١٢٣",
    "สวัสดีชาวโลก नमस्ते दुनिया வணக்கம் გამარჯობა Γειά σου Κόσμε ሰላም",
    "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𝕏 𐍈 🄰 ﷽ ꙮ \U0010fffd",
    "👍🏽 👩\u200d👩\u200d👧\u200d👦 🏳️\u200d🌈 🇫🇮🇸🇪 1️⃣ ☺︎ ☺️ 🧑🏿\u200d🚀",
    "e\u0301 e\u0323\u0302 Z\u0351\u036b\u0343\u036a\u0302\u036b\u033d\u034f\u0334 a\u200d\u200cb",
    "zero\u200bwidth no\u00a0break soft\u00adhyphen \ufeffbom \u2028line \u2029para \u3000wide",
)  # fmt: skip
CODE: Final = (
    "for (int i = 0; i < 1024; ++i) {\n\tsum += a[i] * 3.14159e-7;\n}",
    "def f(x: int) -> int:\n    return x ** 2  # squared\n\n\nprint(f(12345678901234567890))",
    "fn main() -> Result<(), Box<dyn Error>> { println!(\"{:?}\", vec![1u8; 3]); Ok(()) }",
    "SELECT a.*, COUNT(*) AS n FROM t AS a WHERE x <> 'it''s' GROUP BY 1 HAVING n >= 2;",
    "#!/bin/sh\nset -eu; for f in *.txt; do sed -e 's/\\s\\+$//' \"$f\" | tee \"$f.out\"; done",
    '{"key": [1, 2.5, null, true], "nested": {"a": "b\\n", "\\u00e9": -1e-9}}',
    "<div class=\"a b\">&nbsp;<!-- c --></div>\n<script>let x = `t${y}`;</script>",
    "\\begin{align}\n  \\int_0^\\infty e^{-x^2}\\,dx &= \\frac{\\sqrt\\pi}{2}\n\\end{align}",
    "diff --git a/x b/x\n@@ -1,3 +1,3 @@\n-\told\r\n+\tnew\r\n",
    "0123456789 1 12 123 1234 12345 123456 1234567 0x1F 0b1010 1_000 1e10 ١٢٣ ⅷ ² ½",
)  # fmt: skip
LONG: Final = (
    "x" * 64 + " " + "=" * 40 + " " + "0" * 33,
    "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft" * 8,
    "aB3$" * 300,
    "的" * 200 + "ا" * 200 + "🙂" * 100,
)
CONVERSATIONS: Final[tuple[tuple[Message, ...], ...]] = (
    ({"role": "user", "content": "What is it?"},),
    ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is it?"}),
    (
        {"role": "user", "content": "Hello, who are you?"},
        {"role": "assistant", "content": "A model.\nThe answer:\n\n- one\n- two"},
        {"role": "user", "content": "Say   more: {{ 1 + 1 }} {% raw %}"},
    ),
    (
        {"role": "system", "content": "Sei höflich. 🙂"},
        {"role": "user", "content": "Straße"},
        {"role": "assistant", "content": "ja"},
        {"role": "user", "content": "und \"nein\" \\n <b>&amp;</b>"},
        {"role": "assistant", "content": "doch"},
        {"role": "user", "content": "gut"},
    ),
    ({"role": "user", "content": ""},),
    ({"role": "system", "content": ""}, {"role": "user", "content": "x"}),
    ({"role": "user", "content": "<|end|> <|im_end|></s>[INST] <|endoftext|><|user|>"},),
)  # fmt: skip


def plain_texts() -> tuple[str, ...]:
    """Return texts without any token of a model's own.

    Every code point below 256 (hence every byte that UTF-8 may begin or go on with), alone and
    inside a word; runs of blanks of each length; scripts, emoji, code, digits; and what Unicode's
    four normal forms make of the prose.
    """
    points = [chr(at) for at in range(256)] + [f"a{chr(at)}b" for at in range(256)]
    runs = [
        f"a{blank * count}b" for blank in (" ", "\t", "\n") for count in range(1, LONGEST_RUN + 1)
    ]
    runs += [" " * at for at in range(1, LONGEST_RUN + 1)] + ["\r\n" * 3, " \n \t\n  x", "x  \n"]
    forms = [unicodedata.normalize(f, t) for f in ("NFC", "NFD", "NFKC", "NFKD") for t in PROSE]
    return tuple(dict.fromkeys(["", *PROSE, *CODE, *LONG, *points, *runs, *forms]))


def texts_with(tokens: Iterable[AddedToken]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return texts in which added tokens are glued to words, and ones with blanks around them."""
    named = [token.content for token in tokens if token.content.strip() == token.content]
    names = named[:MOST_TOKENS]
    glued = [f"a{name}b{name}{name}c" for name in names]
    spaced = [text for name in names for text in (f"{name}\nb", f"a {name} b  {name}\n\n {name}")]
    return tuple(glued), tuple(spaced)
