# SPDX-License-Identifier: Apache-2.0
# Made by 'syscont completion fish'; do not edit.

set -g __syscont_groups 'config' 'image' 'image alias' 'network' 'operation'
function __syscont_candidates
    switch $argv[1]
        case instance
            syscont list --format csv -c n 2>/dev/null
        case image
            syscont image list --format csv -c L 2>/dev/null | tr ' ' '\n'
        case operation
            syscont operation list --format csv 2>/dev/null | cut -d, -f1
        case key
            syscont config keys --format csv 2>/dev/null | cut -d, -f1 | tr -d '*'
        case device-type
            syscont config keys --device all --format csv 2>/dev/null | cut -d, -f1 | sort -u
        case device-option
            syscont config keys --device all --format csv 2>/dev/null | cut -d, -f2 | tr -d '*' | sort -u
        case source
            echo busybox; echo debian/bookworm; echo debian/trixie; echo debian/sid
        case shell
            echo bash; echo zsh; echo fish
        case verb
            echo launch; echo create; echo list; echo info; echo rename; echo delete; echo start; echo stop; echo restart; echo pause; echo resume; echo exec; echo shell; echo console; echo logs; echo config; echo edit; echo apply; echo image; echo network; echo operation; echo monitor; echo completion; echo version; echo help
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
complete -c syscont -n "__syscont_at ''" -a config -d 'Look at and change the configuration of instances.'
complete -c syscont -n "__syscont_at ''" -a image -d 'Build, import and look after images.'
complete -c syscont -n "__syscont_at ''" -a network -d 'Look at managed networks.'
complete -c syscont -n "__syscont_at ''" -a operation -d 'Look at and cancel what takes long.'
complete -c syscont -n "__syscont_at ''" -a launch -d 'Make an instance from an image and start it'
complete -c syscont -n "__syscont_at ''" -a create -d 'Make an instance from an image'
complete -c syscont -n "__syscont_at ''" -a list -d 'List instances'
complete -c syscont -n "__syscont_at ''" -a info -d 'Show an instance, or the host'
complete -c syscont -n "__syscont_at ''" -a rename -d 'Give a stopped instance another name'
complete -c syscont -n "__syscont_at ''" -a delete -d 'Delete instances and all that is in them'
complete -c syscont -n "__syscont_at ''" -a start -d 'Start instances'
complete -c syscont -n "__syscont_at ''" -a stop -d 'Stop instances'
complete -c syscont -n "__syscont_at ''" -a restart -d 'Stop instances and start them again'
complete -c syscont -n "__syscont_at ''" -a pause -d 'Freeze all that runs in instances'
complete -c syscont -n "__syscont_at ''" -a resume -d 'Let paused instances run on'
complete -c syscont -n "__syscont_at ''" -a exec -d 'Run a command in an instance'
complete -c syscont -n "__syscont_at ''" -a shell -d 'Open a login shell in an instance'
complete -c syscont -n "__syscont_at ''" -a console -d 'Attach to an instance\'s console'
complete -c syscont -n "__syscont_at ''" -a logs -d 'Show what an instance logged'
complete -c syscont -n "__syscont_at ''" -a edit -d 'Edit what an instance is configured by'
complete -c syscont -n "__syscont_at ''" -a apply -d 'Make what there is what a file says'
complete -c syscont -n "__syscont_at ''" -a monitor -d 'Print every change as it happens'
complete -c syscont -n "__syscont_at ''" -a completion -d 'Print the completion of a shell'
complete -c syscont -n "__syscont_at ''" -a version -d 'Print the versions of this command and of the daemon'
complete -c syscont -n "__syscont_at ''" -a help -d 'Explain a verb'
complete -c syscont -n "__syscont_at 'config'" -a get -d 'Print the value of a key'
complete -c syscont -n "__syscont_at 'config'" -a set -d 'Set keys: all of them or none'
complete -c syscont -n "__syscont_at 'config'" -a unset -d 'Remove keys, so that their defaults hold'
complete -c syscont -n "__syscont_at 'config'" -a show -d 'Print an instance\'s configuration'
complete -c syscont -n "__syscont_at 'config'" -a edit -d 'Edit what an instance is configured by'
complete -c syscont -n "__syscont_at 'config'" -a keys -d 'List the keys that there are'
complete -c syscont -n "__syscont_at 'image'" -a alias -d 'Names that stand for images.'
complete -c syscont -n "__syscont_at 'image'" -a build -d 'Build an image'
complete -c syscont -n "__syscont_at 'image'" -a import -d 'Import an image, in LXD\'s unified or split form'
complete -c syscont -n "__syscont_at 'image'" -a list -d 'List images'
complete -c syscont -n "__syscont_at 'image'" -a show -d 'Show an image'
complete -c syscont -n "__syscont_at 'image'" -a delete -d 'Delete images'
complete -c syscont -n "__syscont_at 'image alias'" -a add -d 'Give an image another name'
complete -c syscont -n "__syscont_at 'image alias'" -a remove -d 'Remove names of images'
complete -c syscont -n "__syscont_at 'image alias'" -a list -d 'List the names of images'
complete -c syscont -n "__syscont_at 'network'" -a list -d 'List networks'
complete -c syscont -n "__syscont_at 'operation'" -a list -d 'List what is going on'
complete -c syscont -n "__syscont_at 'operation'" -a cancel -d 'Cancel operations'
complete -c syscont -n "__syscont_at 'launch'" -s c -l config -x -a '(__syscont_candidates key)' -d 'Set a configuration key; may be given several times.'
complete -c syscont -n "__syscont_at 'launch'" -s w -l wait -d 'Return only when the guest has booted.'
complete -c syscont -n "__syscont_at 'launch'" -a '(__syscont_candidates image)'
complete -c syscont -n "__syscont_at 'create'" -s c -l config -x -a '(__syscont_candidates key)' -d 'Set a configuration key; may be given several times.'
complete -c syscont -n "__syscont_at 'create'" -a '(__syscont_candidates image)'
complete -c syscont -n "__syscont_at 'list'" -s c -l columns -x -d 'Which columns to print, by letter or configuration key.'
complete -c syscont -n "__syscont_at 'list'" -l format -x -a 'table compact csv json yaml' -d 'How to print it.'
complete -c syscont -n "__syscont_at 'list'" -l no-legend -d 'Print neither the header nor the count.'
complete -c syscont -n "__syscont_at 'list'" -a '(__syscont_candidates instance)'
complete -c syscont -n "__syscont_at 'info'" -l format -x -a 'text json yaml' -d 'How to print it.'
complete -c syscont -n "__syscont_at 'info'" -a '(__syscont_candidates instance)'
complete -c syscont -n "__syscont_at 'rename'" -a '(__syscont_candidates instance)'
complete -c syscont -n "__syscont_at 'delete'" -s f -l force -d 'Stop an instance first when it runs.'
complete -c syscont -n "__syscont_at 'delete'" -a '(__syscont_candidates instance)'
complete -c syscont -n "__syscont_at 'start'" -s w -l wait -d 'Return only when the guest has booted.'
complete -c syscont -n "__syscont_at 'start'" -l all -d 'Act on every instance that this applies to.'
complete -c syscont -n "__syscont_at 'start'" -a '(__syscont_candidates instance)'
complete -c syscont -n "__syscont_at 'stop'" -s f -l force -d 'Kill the guest at once instead of asking it to stop.'
complete -c syscont -n "__syscont_at 'stop'" -l timeout -x -d 'Seconds that the guest gets to stop before it is killed.'
complete -c syscont -n "__syscont_at 'stop'" -l all -d 'Act on every instance that this applies to.'
complete -c syscont -n "__syscont_at 'stop'" -a '(__syscont_candidates instance)'
complete -c syscont -n "__syscont_at 'restart'" -s w -l wait -d 'Return only when the guest has booted.'
complete -c syscont -n "__syscont_at 'restart'" -s f -l force -d 'Kill the guest at once instead of asking it to stop.'
complete -c syscont -n "__syscont_at 'restart'" -l timeout -x -d 'Seconds that the guest gets to stop before it is killed.'
complete -c syscont -n "__syscont_at 'restart'" -l all -d 'Act on every instance that this applies to.'
complete -c syscont -n "__syscont_at 'restart'" -a '(__syscont_candidates instance)'
complete -c syscont -n "__syscont_at 'pause'" -l all -d 'Act on every instance that this applies to.'
complete -c syscont -n "__syscont_at 'pause'" -a '(__syscont_candidates instance)'
complete -c syscont -n "__syscont_at 'resume'" -l all -d 'Act on every instance that this applies to.'
complete -c syscont -n "__syscont_at 'resume'" -a '(__syscont_candidates instance)'
complete -c syscont -n "__syscont_at 'exec'" -s u -l user -x -d 'Run as this user of the guest (a name or a number).'
complete -c syscont -n "__syscont_at 'exec'" -l cwd -x -d 'Run in this directory of the guest.'
complete -c syscont -n "__syscont_at 'exec'" -l env -x -d 'Set a variable in the command\'s environment; may be repeated.'
complete -c syscont -n "__syscont_at 'exec'" -s t -l tty -d 'Give the command a terminal of its own, also when this one is none.'
complete -c syscont -n "__syscont_at 'exec'" -s T -l no-tty -d 'Give the command no terminal: it gets this one\'s streams as they are.'
complete -c syscont -n "__syscont_at 'exec'" -s n -l no-stdin -d 'Let the command read from /dev/null.'
complete -c syscont -n "__syscont_at 'exec'" -a '(__syscont_candidates instance)'
complete -c syscont -n "__syscont_at 'shell'" -s u -l user -x -d 'Run as this user of the guest (a name or a number).'
complete -c syscont -n "__syscont_at 'shell'" -l cwd -x -d 'Run in this directory of the guest.'
complete -c syscont -n "__syscont_at 'shell'" -l env -x -d 'Set a variable in the command\'s environment; may be repeated.'
complete -c syscont -n "__syscont_at 'shell'" -a '(__syscont_candidates instance)'
complete -c syscont -n "__syscont_at 'console'" -a '(__syscont_candidates instance)'
complete -c syscont -n "__syscont_at 'logs'" -s f -l follow -d 'Go on printing what is logged from now on.'
complete -c syscont -n "__syscont_at 'logs'" -s n -l lines -x -d 'Print only this many of the newest lines.'
complete -c syscont -n "__syscont_at 'logs'" -s b -l boot -d 'Print only what was logged since the host booted.'
complete -c syscont -n "__syscont_at 'logs'" -s o -l output -x -d 'journalctl\'s output mode: short, json, cat, ...'
complete -c syscont -n "__syscont_at 'logs'" -a '(__syscont_candidates instance)'
complete -c syscont -n "__syscont_at 'config get'" -a '(__syscont_candidates instance)'
complete -c syscont -n "__syscont_at 'config get'" -a '(__syscont_candidates key)'
complete -c syscont -n "__syscont_at 'config set'" -a '(__syscont_candidates instance)'
complete -c syscont -n "__syscont_at 'config set'" -a '(__syscont_candidates key)'
complete -c syscont -n "__syscont_at 'config unset'" -a '(__syscont_candidates instance)'
complete -c syscont -n "__syscont_at 'config unset'" -a '(__syscont_candidates key)'
complete -c syscont -n "__syscont_at 'config show'" -s e -l expanded -d 'With what its profiles give it.'
complete -c syscont -n "__syscont_at 'config show'" -s a -l all -d 'List every key with the value in force and where it comes from, defaults too.'
complete -c syscont -n "__syscont_at 'config show'" -l format -x -a 'table compact csv json yaml' -d 'How to print it.'
complete -c syscont -n "__syscont_at 'config show'" -l no-legend -d 'Print neither the header nor the count.'
complete -c syscont -n "__syscont_at 'config show'" -a '(__syscont_candidates instance)'
complete -c syscont -n "__syscont_at 'config edit'" -a '(__syscont_candidates instance)'
complete -c syscont -n "__syscont_at 'config keys'" -l device -x -a '(__syscont_candidates device-type)' -d 'List the options of this type of device, or of all, instead.'
complete -c syscont -n "__syscont_at 'config keys'" -l refused -d 'List what LXD has and syscont can\'t offer, and why.'
complete -c syscont -n "__syscont_at 'config keys'" -l format -x -a 'table compact csv json yaml' -d 'How to print it.'
complete -c syscont -n "__syscont_at 'config keys'" -l no-legend -d 'Print neither the header nor the count.'
complete -c syscont -n "__syscont_at 'edit'" -a '(__syscont_candidates instance)'
complete -c syscont -n "__syscont_at 'apply'" -l dry-run -d 'Show the plan and change nothing.'
complete -c syscont -n "__syscont_at 'apply'" -s y -l yes -d 'Do not ask.'
complete -c syscont -n "__syscont_at 'apply'" -l restart -d 'Restart instances where a change needs it.'
complete -c syscont -n "__syscont_at 'apply'" -l exit-code -d 'End with 10 when something was changed, or with --dry-run would be.'
complete -c syscont -n "__syscont_at 'apply'" -s q -l quiet -d 'Do not show what is unchanged.'
complete -c syscont -n "__syscont_at 'apply'" -l format -x -a 'text json yaml' -d 'How to print it.'
complete -c syscont -n "__syscont_at 'apply'" -F
complete -c syscont -n "__syscont_at 'image build'" -l alias -x -d 'Give the image this name too; may be given several times.'
complete -c syscont -n "__syscont_at 'image build'" -a '(__syscont_candidates source)'
complete -c syscont -n "__syscont_at 'image import'" -l alias -x -d 'Give the image this name too; may be given several times.'
complete -c syscont -n "__syscont_at 'image import'" -F
complete -c syscont -n "__syscont_at 'image list'" -s c -l columns -x -d 'Which columns to print, by letter.'
complete -c syscont -n "__syscont_at 'image list'" -l format -x -a 'table compact csv json yaml' -d 'How to print it.'
complete -c syscont -n "__syscont_at 'image list'" -l no-legend -d 'Print neither the header nor the count.'
complete -c syscont -n "__syscont_at 'image list'" -a '(__syscont_candidates image)'
complete -c syscont -n "__syscont_at 'image show'" -l format -x -a 'yaml json' -d 'How to print it.'
complete -c syscont -n "__syscont_at 'image show'" -a '(__syscont_candidates image)'
complete -c syscont -n "__syscont_at 'image delete'" -a '(__syscont_candidates image)'
complete -c syscont -n "__syscont_at 'image alias add'" -a '(__syscont_candidates image)'
complete -c syscont -n "__syscont_at 'image alias remove'" -a '(__syscont_candidates image)'
complete -c syscont -n "__syscont_at 'image alias list'" -l format -x -a 'table compact csv json yaml' -d 'How to print it.'
complete -c syscont -n "__syscont_at 'image alias list'" -l no-legend -d 'Print neither the header nor the count.'
complete -c syscont -n "__syscont_at 'network list'" -l format -x -a 'table compact csv json yaml' -d 'How to print it.'
complete -c syscont -n "__syscont_at 'network list'" -l no-legend -d 'Print neither the header nor the count.'
complete -c syscont -n "__syscont_at 'operation list'" -l format -x -a 'table compact csv json yaml' -d 'How to print it.'
complete -c syscont -n "__syscont_at 'operation list'" -l no-legend -d 'Print neither the header nor the count.'
complete -c syscont -n "__syscont_at 'operation cancel'" -a '(__syscont_candidates operation)'
complete -c syscont -n "__syscont_at 'monitor'" -l format -x -a 'text json' -d 'How to print it.'
complete -c syscont -n "__syscont_at 'completion'" -a '(__syscont_candidates shell)'
complete -c syscont -n "__syscont_at 'version'" -l client -d 'Print only this command\'s own version.'
complete -c syscont -n "__syscont_at 'help'" -a '(__syscont_candidates verb)'
