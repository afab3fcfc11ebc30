# SPDX-License-Identifier: Apache-2.0
# Made by 'syscont completion bash'; do not edit.

_syscont_candidates() {
    case $1 in
        instance) syscont list --format csv -c n 2>/dev/null ;;
        filter) syscont list --format csv -c n 2>/dev/null ;;
        profile) syscont profile list --format csv 2>/dev/null | cut -d, -f1 ;;
        plain-profile) syscont profile list --format csv 2>/dev/null | cut -d, -f1 ;;
        project) syscont project list --format csv 2>/dev/null | cut -d, -f1 ;;
        project-key) syscont project keys --format csv 2>/dev/null | cut -d, -f1 | tr -d '*' ;;
        network) syscont network list --format csv 2>/dev/null | cut -d, -f1 ;;
        network-key) syscont network keys --format csv 2>/dev/null | cut -d, -f1 | tr -d '*' ;;
        acl) syscont network acl list --format csv 2>/dev/null | cut -d, -f1 ;;
        direction) echo ingress; echo egress ;;
        zone) syscont network zone list --format csv 2>/dev/null | cut -d, -f1 ;;
        zone-key) syscont network zone keys --format csv 2>/dev/null | cut -d, -f1 | tr -d '*' ;;
        image) syscont image list --format csv -c L 2>/dev/null | tr ' ' '\n' ;;
        remote) syscont remote list --format csv 2>/dev/null | cut -d, -f1 ;;
        trusted) syscont trust list --format csv 2>/dev/null | cut -d, -f1 ;;
        operation) syscont operation list --format csv 2>/dev/null | cut -d, -f1 ;;
        instance-or-key) syscont list --format csv -c n 2>/dev/null; syscont config keys --server --format csv 2>/dev/null | cut -d, -f1 | tr -d '*' ;;
        key) syscont config keys --format csv 2>/dev/null | cut -d, -f1 | tr -d '*' ;;
        device-type) syscont config keys --device all --format csv 2>/dev/null | cut -d, -f1 | sort -u ;;
        device-option) syscont config keys --device all --format csv 2>/dev/null | cut -d, -f2 | tr -d '*' | sort -u ;;
        source) echo busybox; echo debian/bookworm; echo debian/trixie; echo debian/sid ;;
        shell) echo bash; echo zsh; echo fish ;;
        verb) echo launch; echo create; echo list; echo info; echo rename; echo copy; echo move; echo delete; echo start; echo stop; echo restart; echo pause; echo resume; echo exec; echo shell; echo console; echo logs; echo file; echo config; echo edit; echo apply; echo snapshot; echo profile; echo project; echo device; echo export; echo import; echo publish; echo image; echo network; echo operation; echo monitor; echo remote; echo trust; echo completion; echo version; echo help ;;
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
        'copy --mode') words='auto pull push' ;;
        'move --mode') words='auto pull push' ;;
        'config show --format') words='table compact csv json yaml' ;;
        'config keys --format') words='table compact csv json yaml' ;;
        'apply --format') words='text json yaml' ;;
        'snapshot list --format') words='table compact csv json yaml' ;;
        'snapshot show --format') words='yaml json' ;;
        'profile list --format') words='table compact csv json yaml' ;;
        'profile show --format') words='yaml json' ;;
        'profile device list --format') words='table compact csv json yaml' ;;
        'project list --format') words='table compact csv json yaml' ;;
        'project show --format') words='yaml json' ;;
        'project info --format') words='table compact csv json yaml' ;;
        'project keys --format') words='table compact csv json yaml' ;;
        'device list --format') words='table compact csv json yaml' ;;
        'device show --format') words='yaml json' ;;
        'export --compression') words='none gzip bzip2 xz lzma zstd lz4' ;;
        'image import --format') words='qcow2 raw' ;;
        'image list --format') words='table compact csv json yaml' ;;
        'image show --format') words='yaml json' ;;
        'image alias list --format') words='table compact csv json yaml' ;;
        'network list --format') words='table compact csv json yaml' ;;
        'network show --format') words='yaml json' ;;
        'network info --format') words='yaml json' ;;
        'network create --type') words='bridge macvlan ovn physical sriov' ;;
        'network keys --type') words='bridge macvlan ovn physical sriov' ;;
        'network keys --format') words='table compact csv json yaml' ;;
        'network list-leases --format') words='table compact csv json yaml' ;;
        'network forward list --format') words='table compact csv json yaml' ;;
        'network forward show --format') words='yaml json' ;;
        'network peer list --format') words='table compact csv json yaml' ;;
        'network peer show --format') words='yaml json' ;;
        'network acl list --format') words='table compact csv json yaml' ;;
        'network acl show --format') words='yaml json' ;;
        'network zone list --format') words='table compact csv json yaml' ;;
        'network zone show --format') words='yaml json' ;;
        'network zone keys --format') words='table compact csv json yaml' ;;
        'network zone record list --format') words='table compact csv json yaml' ;;
        'network zone record show --format') words='yaml json' ;;
        'operation list --format') words='table compact csv json yaml' ;;
        'monitor --format') words='text json' ;;
        'remote list --format') words='table compact csv json yaml' ;;
        'trust list --format') words='table compact csv json yaml' ;;
        'launch --config') kind=key ;;
        'launch -c') kind=key ;;
        'launch --network') kind=network ;;
        'launch -n') kind=network ;;
        'launch --profile') kind=plain-profile ;;
        'launch -p') kind=plain-profile ;;
        'create --config') kind=key ;;
        'create -c') kind=key ;;
        'create --network') kind=network ;;
        'create -n') kind=network ;;
        'create --profile') kind=plain-profile ;;
        'create -p') kind=plain-profile ;;
        'copy --config') kind=key ;;
        'copy -c') kind=key ;;
        'move --config') kind=key ;;
        'move -c') kind=key ;;
        'config keys --device') kind=device-type ;;
        'profile create --config') kind=key ;;
        'profile create -c') kind=key ;;
        'project create --config') kind=key ;;
        'project create -c') kind=key ;;
        'network create --config') kind=network-key ;;
        'network create -c') kind=network-key ;;
        'network zone create --config') kind=zone-key ;;
        'network zone create -c') kind=zone-key ;;
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
        '') words='file config profile project device image snapshot network operation remote trust launch create list info rename copy move delete start stop restart pause resume exec shell console logs edit apply export import publish monitor completion version help' ;;
        'file') words='push pull edit mkdir delete' ;;
        'config') words='get set unset show keys' ;;
        'profile') words='device list show create copy rename delete edit get set unset assign add remove' ;;
        'profile device') words='list add set unset remove' ;;
        'project') words='list show info create rename delete edit get set unset keys switch current' ;;
        'device') words='add override set unset get remove list show' ;;
        'image') words='alias build import list show delete' ;;
        'image alias') words='add remove list' ;;
        'snapshot') words='create restore list show rename delete' ;;
        'network') words='forward peer acl zone list show info create rename delete edit get set unset keys attach detach list-leases' ;;
        'network forward') words='port list show create set delete' ;;
        'network forward port') words='add remove' ;;
        'network peer') words='list show create delete' ;;
        'network acl') words='rule list show create rename delete edit get set unset' ;;
        'network acl rule') words='add remove' ;;
        'network zone') words='record list show create delete edit get set unset keys' ;;
        'network zone record') words='entry list show create delete' ;;
        'network zone record entry') words='add remove' ;;
        'operation') words='list cancel' ;;
        'remote') words='list add remove rename set-address switch current certificate token' ;;
        'trust') words='list add remove' ;;
        'launch') options='--config --device --network --profile --no-profiles --ephemeral --vm --wait --project --help' valued=' --config -c --device -d --network -n --profile -p --project ' kinds=(image target) ;;
        'create') options='--config --device --network --profile --no-profiles --ephemeral --vm --project --help' valued=' --config -c --device -d --network -n --profile -p --project ' kinds=(image target) ;;
        'list') options='--columns --all-projects --format --no-legend --project --help' valued=' --columns -c --format --project ' kinds=(filter ...) ;;
        'info') options='--format --project --help' valued=' --format --project ' kinds=(instance) ;;
        'rename') options='--project --help' valued=' --project ' kinds=(instance new) ;;
        'copy') options='--config --device --profile --no-profiles --ephemeral --instance-only --target-project --storage --refresh --mode --project --help' valued=' --config -c --device -d --profile -p --target-project --storage -s --mode --project ' kinds=(instance target) ;;
        'move') options='--target-project --take --stateful --config --device --profile --no-profiles --instance-only --storage --mode --project --help' valued=' --target-project --config -c --device -d --profile -p --storage -s --mode --project ' kinds=(instance target) ;;
        'delete') options='--force --project --help' valued=' --project ' kinds=(instance ...) ;;
        'start') options='--wait --stateless --all --project --help' valued=' --project ' kinds=(instance ...) ;;
        'stop') options='--stateful --force --timeout --all --project --help' valued=' --timeout --project ' kinds=(instance ...) ;;
        'restart') options='--wait --stateless --force --timeout --all --project --help' valued=' --timeout --project ' kinds=(instance ...) ;;
        'pause') options='--all --project --help' valued=' --project ' kinds=(instance ...) ;;
        'resume') options='--all --project --help' valued=' --project ' kinds=(instance ...) ;;
        'exec') options='--user --cwd --env --tty --no-tty --no-stdin --project --help' valued=' --user -u --cwd --env --project ' kinds=(instance) ;;
        'shell') options='--user --cwd --env --project --help' valued=' --user -u --cwd --env --project ' kinds=(instance) ;;
        'console') options='--project --help' valued=' --project ' kinds=(instance) ;;
        'logs') options='--follow --lines --boot --output --project --help' valued=' --lines -n --output -o --project ' kinds=(instance) ;;
        'file push') options='--recursive --create-dirs --mode --uid --gid --project --help' valued=' --mode --uid --gid --project ' kinds=(file ...) ;;
        'file pull') options='--recursive --create-dirs --project --help' valued=' --project ' kinds=(instance ...) ;;
        'file edit') options='--project --help' valued=' --project ' kinds=(instance) ;;
        'file mkdir') options='--create-dirs --mode --uid --gid --project --help' valued=' --mode --uid --gid --project ' kinds=(instance ...) ;;
        'file delete') options='--recursive --project --help' valued=' --project ' kinds=(instance ...) ;;
        'config get') options='--project --help' valued=' --project ' kinds=(instance-or-key key) ;;
        'config set') options='--project --help' valued=' --project ' kinds=(instance-or-key key ...) ;;
        'config unset') options='--project --help' valued=' --project ' kinds=(instance-or-key key ...) ;;
        'config show') options='--expanded --all --format --no-legend --project --help' valued=' --format --project ' kinds=(instance) ;;
        'config keys') options='--device --server --refused --format --no-legend --project --help' valued=' --device --format --project ' kinds=() ;;
        'edit') options='--project --help' valued=' --project ' kinds=(instance) ;;
        'apply') options='--dry-run --yes --restart --exit-code --quiet --format --project --help' valued=' --format --project ' kinds=(file) ;;
        'snapshot create') options='--stateful --reuse --no-expiry --scheduled --project --help' valued=' --project ' kinds=(instance none) ;;
        'snapshot restore') options='--stateful --project --help' valued=' --project ' kinds=(instance none) ;;
        'snapshot list') options='--format --no-legend --project --help' valued=' --format --project ' kinds=(instance) ;;
        'snapshot show') options='--format --project --help' valued=' --format --project ' kinds=(instance none) ;;
        'snapshot rename') options='--project --help' valued=' --project ' kinds=(instance none) ;;
        'snapshot delete') options='--project --help' valued=' --project ' kinds=(instance none) ;;
        'profile list') options='--all-projects --format --no-legend --project --help' valued=' --format --project ' kinds=() ;;
        'profile show') options='--format --project --help' valued=' --format --project ' kinds=(profile) ;;
        'profile create') options='--config --description --project --help' valued=' --config -c --description --project ' kinds=(new-profile) ;;
        'profile copy') options='--project --help' valued=' --project ' kinds=(profile new-profile) ;;
        'profile rename') options='--project --help' valued=' --project ' kinds=(profile new) ;;
        'profile delete') options='--project --help' valued=' --project ' kinds=(profile ...) ;;
        'profile edit') options='--project --help' valued=' --project ' kinds=(profile) ;;
        'profile get') options='--project --help' valued=' --project ' kinds=(profile key) ;;
        'profile set') options='--project --help' valued=' --project ' kinds=(profile key ...) ;;
        'profile unset') options='--project --help' valued=' --project ' kinds=(profile key ...) ;;
        'profile assign') options='--project --help' valued=' --project ' kinds=(instance plain-profile ...) ;;
        'profile add') options='--project --help' valued=' --project ' kinds=(instance plain-profile ...) ;;
        'profile remove') options='--project --help' valued=' --project ' kinds=(instance plain-profile ...) ;;
        'profile device list') options='--format --no-legend --project --help' valued=' --format --project ' kinds=(profile) ;;
        'profile device add') options='--project --help' valued=' --project ' kinds=(profile none) ;;
        'profile device set') options='--project --help' valued=' --project ' kinds=(profile none) ;;
        'profile device unset') options='--project --help' valued=' --project ' kinds=(profile none) ;;
        'profile device remove') options='--project --help' valued=' --project ' kinds=(profile none) ;;
        'project list') options='--format --no-legend --project --help' valued=' --format --project ' kinds=() ;;
        'project show') options='--format --project --help' valued=' --format --project ' kinds=(project) ;;
        'project info') options='--format --no-legend --project --help' valued=' --format --project ' kinds=(project) ;;
        'project create') options='--config --description --project --help' valued=' --config -c --description --project ' kinds=(new) ;;
        'project rename') options='--project --help' valued=' --project ' kinds=(project new) ;;
        'project delete') options='--project --help' valued=' --project ' kinds=(project ...) ;;
        'project edit') options='--project --help' valued=' --project ' kinds=(project) ;;
        'project get') options='--project --help' valued=' --project ' kinds=(project project-key) ;;
        'project set') options='--project --help' valued=' --project ' kinds=(project project-key ...) ;;
        'project unset') options='--project --help' valued=' --project ' kinds=(project project-key ...) ;;
        'project keys') options='--refused --format --no-legend --project --help' valued=' --format --project ' kinds=() ;;
        'project switch') options='--project --help' valued=' --project ' kinds=(project) ;;
        'project current') options='--project --help' valued=' --project ' kinds=() ;;
        'device add') options='--project --help' valued=' --project ' kinds=(instance none device-type device-option ...) ;;
        'device override') options='--project --help' valued=' --project ' kinds=(instance none device-option ...) ;;
        'device set') options='--project --help' valued=' --project ' kinds=(instance none device-option ...) ;;
        'device unset') options='--project --help' valued=' --project ' kinds=(instance none device-option ...) ;;
        'device get') options='--project --help' valued=' --project ' kinds=(instance none device-option) ;;
        'device remove') options='--project --help' valued=' --project ' kinds=(instance) ;;
        'device list') options='--format --no-legend --project --help' valued=' --format --project ' kinds=(instance) ;;
        'device show') options='--format --project --help' valued=' --format --project ' kinds=(instance) ;;
        'export') options='--compression --instance-only --project --help' valued=' --compression --project ' kinds=(instance file) ;;
        'import') options='--target-project --project --help' valued=' --target-project --project ' kinds=(file target) ;;
        'publish') options='--alias --property --project --help' valued=' --alias --property --project ' kinds=(instance) ;;
        'image build') options='--alias --vm --project --help' valued=' --alias --project ' kinds=(source) ;;
        'image import') options='--alias --vm --format --project --help' valued=' --alias --format --project ' kinds=(file file) ;;
        'image list') options='--columns --format --no-legend --project --help' valued=' --columns -c --format --project ' kinds=(image ...) ;;
        'image show') options='--format --project --help' valued=' --format --project ' kinds=(image) ;;
        'image delete') options='--project --help' valued=' --project ' kinds=(image ...) ;;
        'image alias add') options='--project --help' valued=' --project ' kinds=(new image) ;;
        'image alias remove') options='--project --help' valued=' --project ' kinds=(image ...) ;;
        'image alias list') options='--format --no-legend --project --help' valued=' --format --project ' kinds=() ;;
        'network list') options='--format --no-legend --project --help' valued=' --format --project ' kinds=() ;;
        'network show') options='--format --project --help' valued=' --format --project ' kinds=(network) ;;
        'network info') options='--format --acceleration --project --help' valued=' --format --project ' kinds=(network) ;;
        'network create') options='--type --config --description --project --help' valued=' --type -t --config -c --description --project ' kinds=(new network-key ...) ;;
        'network rename') options='--project --help' valued=' --project ' kinds=(network new) ;;
        'network delete') options='--project --help' valued=' --project ' kinds=(network ...) ;;
        'network edit') options='--project --help' valued=' --project ' kinds=(network) ;;
        'network get') options='--project --help' valued=' --project ' kinds=(network network-key) ;;
        'network set') options='--project --help' valued=' --project ' kinds=(network network-key ...) ;;
        'network unset') options='--project --help' valued=' --project ' kinds=(network network-key ...) ;;
        'network keys') options='--type --refused --format --no-legend --project --help' valued=' --type -t --format --project ' kinds=() ;;
        'network attach') options='--project --help' valued=' --project ' kinds=(network instance none) ;;
        'network detach') options='--project --help' valued=' --project ' kinds=(network instance none) ;;
        'network list-leases') options='--format --no-legend --project --help' valued=' --format --project ' kinds=(network) ;;
        'network forward list') options='--format --no-legend --project --help' valued=' --format --project ' kinds=(network) ;;
        'network forward show') options='--format --project --help' valued=' --format --project ' kinds=(network none) ;;
        'network forward create') options='--description --project --help' valued=' --description --project ' kinds=(network none) ;;
        'network forward set') options='--project --help' valued=' --project ' kinds=(network none) ;;
        'network forward delete') options='--project --help' valued=' --project ' kinds=(network none) ;;
        'network forward port add') options='--description --project --help' valued=' --description --project ' kinds=(network none) ;;
        'network forward port remove') options='--project --help' valued=' --project ' kinds=(network none) ;;
        'network peer list') options='--format --no-legend --project --help' valued=' --format --project ' kinds=(network) ;;
        'network peer show') options='--format --project --help' valued=' --format --project ' kinds=(network none) ;;
        'network peer create') options='--description --project --help' valued=' --description --project ' kinds=(network none network) ;;
        'network peer delete') options='--project --help' valued=' --project ' kinds=(network none) ;;
        'network acl list') options='--format --no-legend --project --help' valued=' --format --project ' kinds=() ;;
        'network acl show') options='--format --project --help' valued=' --format --project ' kinds=(acl) ;;
        'network acl create') options='--description --project --help' valued=' --description --project ' kinds=(new) ;;
        'network acl rename') options='--project --help' valued=' --project ' kinds=(acl new) ;;
        'network acl delete') options='--project --help' valued=' --project ' kinds=(acl ...) ;;
        'network acl edit') options='--project --help' valued=' --project ' kinds=(acl) ;;
        'network acl get') options='--project --help' valued=' --project ' kinds=(acl none) ;;
        'network acl set') options='--project --help' valued=' --project ' kinds=(acl none) ;;
        'network acl unset') options='--project --help' valued=' --project ' kinds=(acl none) ;;
        'network acl rule add') options='--project --help' valued=' --project ' kinds=(acl direction none) ;;
        'network acl rule remove') options='--force --project --help' valued=' --project ' kinds=(acl direction none) ;;
        'network zone list') options='--format --no-legend --project --help' valued=' --format --project ' kinds=() ;;
        'network zone show') options='--format --project --help' valued=' --format --project ' kinds=(zone) ;;
        'network zone create') options='--config --description --project --help' valued=' --config -c --description --project ' kinds=(new zone-key ...) ;;
        'network zone delete') options='--project --help' valued=' --project ' kinds=(zone ...) ;;
        'network zone edit') options='--project --help' valued=' --project ' kinds=(zone) ;;
        'network zone get') options='--project --help' valued=' --project ' kinds=(zone zone-key) ;;
        'network zone set') options='--project --help' valued=' --project ' kinds=(zone zone-key ...) ;;
        'network zone unset') options='--project --help' valued=' --project ' kinds=(zone zone-key ...) ;;
        'network zone keys') options='--refused --format --no-legend --project --help' valued=' --format --project ' kinds=() ;;
        'network zone record list') options='--format --no-legend --project --help' valued=' --format --project ' kinds=(zone) ;;
        'network zone record show') options='--format --project --help' valued=' --format --project ' kinds=(zone none) ;;
        'network zone record create') options='--description --project --help' valued=' --description --project ' kinds=(zone none) ;;
        'network zone record delete') options='--project --help' valued=' --project ' kinds=(zone none) ;;
        'network zone record entry add') options='--ttl --project --help' valued=' --ttl --project ' kinds=(zone none) ;;
        'network zone record entry remove') options='--project --help' valued=' --project ' kinds=(zone none) ;;
        'operation list') options='--format --no-legend --project --help' valued=' --format --project ' kinds=() ;;
        'operation cancel') options='--project --help' valued=' --project ' kinds=(operation ...) ;;
        'monitor') options='--format --project --help' valued=' --format --project ' kinds=() ;;
        'remote list') options='--format --no-legend --project --help' valued=' --format --project ' kinds=() ;;
        'remote add') options='--fingerprint --project --help' valued=' --fingerprint --project ' kinds=(none none) ;;
        'remote remove') options='--project --help' valued=' --project ' kinds=(remote ...) ;;
        'remote rename') options='--project --help' valued=' --project ' kinds=(remote none) ;;
        'remote set-address') options='--project --help' valued=' --project ' kinds=(remote none) ;;
        'remote switch') options='--project --help' valued=' --project ' kinds=(remote) ;;
        'remote current') options='--project --help' valued=' --project ' kinds=() ;;
        'remote certificate') options='--project --help' valued=' --project ' kinds=() ;;
        'remote token') options='--project --help' valued=' --project ' kinds=(none) ;;
        'trust list') options='--format --no-legend --project --help' valued=' --format --project ' kinds=() ;;
        'trust add') options='--project --help' valued=' --project ' kinds=(file none) ;;
        'trust remove') options='--project --help' valued=' --project ' kinds=(trusted ...) ;;
        'completion') options='--project --help' valued=' --project ' kinds=(shell) ;;
        'version') options='--client --project --help' valued=' --project ' kinds=() ;;
        'help') options='--project --help' valued=' --project ' kinds=(verb ...) ;;
    esac
}

complete -F _syscont syscont
