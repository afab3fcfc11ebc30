# SPDX-License-Identifier: Apache-2.0
# Made by 'syscont completion bash'; do not edit.

_syscont_candidates() {
    case $1 in
        instance) syscont list --format csv -c n 2>/dev/null ;;
        image) syscont image list --format csv -c L 2>/dev/null | tr ' ' '\n' ;;
        operation) syscont operation list --format csv 2>/dev/null | cut -d, -f1 ;;
        key) syscont config keys --format csv 2>/dev/null | cut -d, -f1 | tr -d '*' ;;
        device-type) syscont config keys --device all --format csv 2>/dev/null | cut -d, -f1 | sort -u ;;
        device-option) syscont config keys --device all --format csv 2>/dev/null | cut -d, -f2 | tr -d '*' | sort -u ;;
        source) echo busybox; echo debian/bookworm; echo debian/trixie; echo debian/sid ;;
        shell) echo bash; echo zsh; echo fish ;;
        verb) echo launch; echo create; echo list; echo info; echo rename; echo copy; echo move; echo delete; echo start; echo stop; echo restart; echo pause; echo resume; echo exec; echo shell; echo console; echo logs; echo config; echo edit; echo apply; echo snapshot; echo image; echo network; echo operation; echo monitor; echo completion; echo version; echo help ;;
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
        'list --format') words='table compact csv json yaml' ;;
        'info --format') words='text json yaml' ;;
        'config show --format') words='table compact csv json yaml' ;;
        'config keys --format') words='table compact csv json yaml' ;;
        'apply --format') words='text json yaml' ;;
        'snapshot list --format') words='table compact csv json yaml' ;;
        'snapshot show --format') words='yaml json' ;;
        'image list --format') words='table compact csv json yaml' ;;
        'image show --format') words='yaml json' ;;
        'image alias list --format') words='table compact csv json yaml' ;;
        'network list --format') words='table compact csv json yaml' ;;
        'operation list --format') words='table compact csv json yaml' ;;
        'monitor --format') words='text json' ;;
        'launch --config') kind=key ;;
        'launch -c') kind=key ;;
        'create --config') kind=key ;;
        'create -c') kind=key ;;
        'copy --config') kind=key ;;
        'copy -c') kind=key ;;
        'config keys --device') kind=device-type ;;
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
        '') words='config image snapshot network operation launch create list info rename copy move delete start stop restart pause resume exec shell console logs edit apply monitor completion version help' ;;
        'config') words='get set unset show edit keys' ;;
        'image') words='alias build import list show delete' ;;
        'image alias') words='add remove list' ;;
        'snapshot') words='create restore list show rename delete' ;;
        'network') words='list' ;;
        'operation') words='list cancel' ;;
        'launch') options='--config --ephemeral --wait --help' valued=' --config -c ' kinds=(image none) ;;
        'create') options='--config --ephemeral --help' valued=' --config -c ' kinds=(image none) ;;
        'list') options='--columns --format --no-legend --help' valued=' --columns -c --format ' kinds=(instance ...) ;;
        'info') options='--format --help' valued=' --format ' kinds=(instance) ;;
        'rename') options='--help' valued='  ' kinds=(instance none) ;;
        'copy') options='--config --device --profile --no-profiles --ephemeral --instance-only --target-project --storage --help' valued=' --config -c --device -d --profile -p --target-project --storage -s ' kinds=(instance none) ;;
        'move') options='--target-project --help' valued=' --target-project ' kinds=(instance none) ;;
        'delete') options='--force --help' valued='  ' kinds=(instance ...) ;;
        'start') options='--wait --all --help' valued='  ' kinds=(instance ...) ;;
        'stop') options='--force --timeout --all --help' valued=' --timeout ' kinds=(instance ...) ;;
        'restart') options='--wait --force --timeout --all --help' valued=' --timeout ' kinds=(instance ...) ;;
        'pause') options='--all --help' valued='  ' kinds=(instance ...) ;;
        'resume') options='--all --help' valued='  ' kinds=(instance ...) ;;
        'exec') options='--user --cwd --env --tty --no-tty --no-stdin --help' valued=' --user -u --cwd --env ' kinds=(instance) ;;
        'shell') options='--user --cwd --env --help' valued=' --user -u --cwd --env ' kinds=(instance) ;;
        'console') options='--help' valued='  ' kinds=(instance) ;;
        'logs') options='--follow --lines --boot --output --help' valued=' --lines -n --output -o ' kinds=(instance) ;;
        'config get') options='--help' valued='  ' kinds=(instance key) ;;
        'config set') options='--help' valued='  ' kinds=(instance key ...) ;;
        'config unset') options='--help' valued='  ' kinds=(instance key ...) ;;
        'config show') options='--expanded --all --format --no-legend --help' valued=' --format ' kinds=(instance) ;;
        'config edit') options='--help' valued='  ' kinds=(instance) ;;
        'config keys') options='--device --refused --format --no-legend --help' valued=' --device --format ' kinds=() ;;
        'edit') options='--help' valued='  ' kinds=(instance) ;;
        'apply') options='--dry-run --yes --restart --exit-code --quiet --format --help' valued=' --format ' kinds=(file) ;;
        'snapshot create') options='--reuse --no-expiry --scheduled --help' valued='  ' kinds=(instance none) ;;
        'snapshot restore') options='--help' valued='  ' kinds=(instance none) ;;
        'snapshot list') options='--format --no-legend --help' valued=' --format ' kinds=(instance) ;;
        'snapshot show') options='--format --help' valued=' --format ' kinds=(instance none) ;;
        'snapshot rename') options='--help' valued='  ' kinds=(instance none) ;;
        'snapshot delete') options='--help' valued='  ' kinds=(instance none) ;;
        'image build') options='--alias --help' valued=' --alias ' kinds=(source) ;;
        'image import') options='--alias --help' valued=' --alias ' kinds=(file file) ;;
        'image list') options='--columns --format --no-legend --help' valued=' --columns -c --format ' kinds=(image ...) ;;
        'image show') options='--format --help' valued=' --format ' kinds=(image) ;;
        'image delete') options='--help' valued='  ' kinds=(image ...) ;;
        'image alias add') options='--help' valued='  ' kinds=(none image) ;;
        'image alias remove') options='--help' valued='  ' kinds=(image ...) ;;
        'image alias list') options='--format --no-legend --help' valued=' --format ' kinds=() ;;
        'network list') options='--format --no-legend --help' valued=' --format ' kinds=() ;;
        'operation list') options='--format --no-legend --help' valued=' --format ' kinds=() ;;
        'operation cancel') options='--help' valued='  ' kinds=(operation ...) ;;
        'monitor') options='--format --help' valued=' --format ' kinds=() ;;
        'completion') options='--help' valued='  ' kinds=(shell) ;;
        'version') options='--client --help' valued='  ' kinds=() ;;
        'help') options='--help' valued='  ' kinds=(verb ...) ;;
    esac
}

complete -F _syscont syscont
