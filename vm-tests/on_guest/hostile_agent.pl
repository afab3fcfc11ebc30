# SPDX-License-Identifier: Apache-2.0
# hostile_agent.pl MODE FOLDER: be the guest's agent as none should be, until FOLDER has a file named stop.
use strict;
use Errno;
use Fcntl;

my ($mode, $folder) = @ARGV;
my $place = "/dev/virtio-ports/org.qemu.guest_agent.0";
my $port;

sub look { local $!; exit if -e "$folder/stop"; alarm 1 }
$SIG{ALRM} = \&look;

sub answer {
    my ($data) = @_;
    while (length $data) {
        my $sent = syswrite $port, $data;
        defined $sent ? substr($data, 0, $sent, "") : $!{EINTR} || die "$!";
    }
}

my $heard = "";
sub question {
    while ($heard !~ s/^([^\n]*)\n//) {
        my $got = sysread $port, $heard, 65536, length $heard;
        die "$!" if !defined $got && !$!{EINTR};
        select undef, undef, undef, 0.1 if defined $got && !$got; # nobody is there
    }
    return $1;
}

# The way to be believed: a number is given back.
sub in_step {
    my ($asked) = @_;
    return unless $asked =~ /guest-sync-delimited.*"id": *(\d+)/;
    return "\xff{\"return\": $1}\n";
}

my @nonsense = (
    "\n", "{\n", "[1]\n", "\xff\xfe\n", '{"return": ' . "[" x 200000 . "\n", "{\"error\": 1}\n", "\0" x 1000 . "\n",
    '{"return": ' . "9" x 100000 . "}\n", '{"return": {}, "error": []}' . "\n",
);
my $count = 0;
my %by_question = (
    malformed => sub { $nonsense[$count++ % @nonsense] },
    "wrong ids" => sub { "{\"return\": " . $count++ . "}\n" },
    half => sub { $count++ ? "" : '{"return": ' },
    silent => sub { "" },
    lies => sub { in_step($_[0]) || '{"return": {"pid": "one", "exited": 1, "ip-addresses": {}}}' . "\n" },
    twice => sub { (in_step($_[0]) || "{\"return\": {}}\n") x 2 },
    "too much" => sub {
        in_step($_[0]) || '{"return": {"pid": 7, "exited": true, "exitcode": 3, "out-data": "' . "AAAA" x 700000 . "\"}}\n"
    },
);

sysopen $port, $place, O_RDWR or die "$place: $!";
open my $begun, ">", "$folder/begun" or die "$!";
alarm 1;
if ($mode eq "endless") { answer("{\"return\": {}}\n" x 4096) while 1 }
if ($mode eq "huge") { answer("x" x 1048576) while 1 }
if ($mode eq "flaps") { while (1) { close $port; sysopen $port, $place, O_RDWR or die "$!" } }
answer($by_question{$mode}->(question())) while 1;
