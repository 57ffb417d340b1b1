"""Completion in bash of words that hold colons, which bash takes for several words.

Bash ends a word at each character of COMP_WORDBREAKS, so `phi-3:Q` comes as three words, and of an
answer it puts in what follows the last colon only. Here words are what blanks part, and what bash
has already is cut off the answers, as bash-completion's `__ltrim_colon_completions` does.
"""

from __future__ import annotations

import os
from typing import ClassVar

from click.shell_completion import BashComplete, add_completion_class, split_arg_string

# click's script, but for the line that is passed, the cut, and no blank behind a folder.
_SCRIPT = """\
%(complete_func)s() {
    local IFS=$'\\n'
    local response completion type value line="${COMP_LINE:0:${COMP_POINT:-0}}"

    response=$(env COMP_WORDS="${COMP_WORDS[*]}" COMP_CWORD=$COMP_CWORD \
COMP_LINE="$line" %(complete_var)s=bash_complete $1)

    for completion in $response; do
        IFS=',' read -r type value <<< "$completion"

        if [[ $type == 'dir' ]]; then
            COMPREPLY=()
            compopt -o dirnames
        elif [[ $type == 'file' ]]; then
            COMPREPLY=()
            compopt -o default
        elif [[ $type == 'plain' ]]; then
            COMPREPLY+=("$value")
        fi
    done

    local mark prefix word="${line##*[[:space:]]}"
    [[ $word == --*=* ]] && word="${word#*=}"
    for mark in : @ =; do
        [[ $word == *$mark* && $COMP_WORDBREAKS == *$mark* ]] || continue
        prefix="${word%%"${word##*$mark}"}"
        word="${word#"$prefix"}"
        COMPREPLY=("${COMPREPLY[@]#"$prefix"}")
    done

    if [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == */ ]]; then
        compopt -o nospace 2>/dev/null
    fi
    return 0
}

%(complete_func)s_setup() {
    complete -o nosort -F %(complete_func)s %(prog_name)s
}

%(complete_func)s_setup;
"""


class Bash(BashComplete):
    """Bash, asked with the whole line."""

    name: ClassVar[str] = "bash"
    source_template: ClassVar[str] = _SCRIPT

    def get_completion_args(self) -> tuple[list[str], str]:
        """Return the words before the one that is completed, and what there is of that."""
        line = os.environ.get("COMP_LINE", "")
        if not line.strip():
            return super().get_completion_args()
        words = split_arg_string(line)
        last = "" if line[-1].isspace() else words.pop()
        return words[1:], last


def register() -> None:
    """Let click answer bash by this."""
    add_completion_class(Bash)
