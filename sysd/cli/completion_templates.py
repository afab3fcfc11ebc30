# SPDX-License-Identifier: Apache-2.0
"""The parts of completion that no table knows; ``@name@`` is filled in by completion.py."""

BASH = r"""
_syscont_candidates() {
    case $1 in
@sources@
    esac
}

_syscont() {
    local cur=${COMP_WORDS[COMP_CWORD]} prev="" verb="" word words="" options="" valued="" kind
    local -a kinds=()
    local i last count=0 literal=0
    COMPREPLY=()
    _syscont_verb ""

    for ((i = 1; i < COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        if [[ -z $options ]]; then
            verb=${verb:+$verb }$word
            _syscont_verb "$verb"
            [[ -n $options$words ]] || return 0
        elif ((literal)); then
            count=$((count + 1))
        elif [[ $word == -- ]]; then
            literal=1
        elif [[ $word == "=" ]]; then
            # bash breaks words at "=": what follows belongs to the word before.
            i=$((i + 1))
        elif [[ $valued == *" $word "* ]]; then
            [[ ${COMP_WORDS[i + 1]} != "=" ]] || i=$((i + 1))
            i=$((i + 1))
            ((i < COMP_CWORD)) || prev=$word
        elif [[ $word != -* ]]; then
            count=$((count + 1))
        fi
    done
    [[ $cur != "=" ]] || cur=""

    if [[ -z $options ]]; then
        COMPREPLY=($(compgen -W "$words" -- "$cur"))
    elif [[ -n $prev ]]; then
        kind=""
        case "$verb $prev" in
@choices@
        esac
        COMPREPLY=($(compgen -W "$words" -- "$cur"))
        [[ -z $kind ]] || _syscont_offer "$kind" "$cur"
    elif [[ $cur == -* && $literal == 0 ]]; then
        COMPREPLY=($(compgen -W "$options" -- "$cur"))
    else
        last=$((${#kinds[@]} - 1))
        if ((last > 0 && count >= last)) && [[ ${kinds[last]} == ... ]]; then
            count=$((last - 1))
        fi
        kind=${kinds[count]:-none}
        _syscont_offer "$kind" "$cur"
    fi
}

# Offers what there is of a kind that begins as what is typed does.
_syscont_offer() {
    local word
    if [[ $1 == file ]]; then
        COMPREPLY=($(compgen -f -- "$2"))
        return
    fi
    # Not by compgen -W, which would expand what it is given.
    while IFS= read -r word; do
        [[ -n $word && $word == "$2"* ]] && COMPREPLY+=("$word")
    done < <(_syscont_candidates "$1")
}

# Sets what may stand after a verb or a group: words, or options, those of them with values, and kinds of arguments.
_syscont_verb() {
    words="" options="" valued="" kinds=()
    case $1 in
@groups@
@verbs@
    esac
}

complete -F _syscont syscont
"""

ZSH = r"""
_syscont_candidates() {
    local -a found
    found=(${(f)"$(_syscont_print $1)"})
    compadd -a found
}

_syscont_print() {
    case $1 in
@sources@
    esac
}

_syscont() {
    local verb="" i=2
    local -a words_here
    _syscont_words ""
    while ((i < CURRENT && $#words_here)); do
        verb=${verb:+$verb }$words[i]
        ((i++))
        _syscont_words $verb
    done
    if (($#words_here)); then
        _describe verb words_here
        return
    fi
    shift $((i - 2)) words
    ((CURRENT -= i - 2))
    case $verb in
@verbs@
    esac
}

_syscont_words() {
    words_here=()
    case $1 in
@groups@
    esac
}

_syscont "$@"
"""

FISH = r"""
set -g __syscont_groups @groups@

function __syscont_candidates
    switch $argv[1]
@sources@
    end
end

# Whether the words up to the cursor name this verb, or this group with nothing after it.
function __syscont_at
    set -l path
    for word in (commandline -opc)[2..-1]
        set path (string join ' ' -- $path $word)
        contains -- "$path" $__syscont_groups; or break
    end
    test "$path" = "$argv[1]"
end

complete -c syscont -f
@lines@
"""
