# SPDX-License-Identifier: Apache-2.0
# talk.pl SOCKET HEX TIMES LIMIT: connect, send bytes so many times, print what comes until the end or for LIMIT seconds.
# talk.pl SOCKET crowd N: connect N times, print how many were closed within a second.
# In Perl, which is in every Debian.
use IO::Socket::UNIX;

my ($path, $data, $times, $limit) = @ARGV;
sub connected { IO::Socket::UNIX->new(Peer => $path) or die "no socket: $!" }
$| = 1;
$SIG{PIPE} = "IGNORE";
if ($data eq "crowd") {
    my @crowd = map { connected() } 1 .. $times;
    sleep 1;
    my $closed = 0;
    for (@crowd) { $_->blocking(0); my $n = sysread $_, my $got, 1; $closed++ if defined $n && $n == 0 }
    print $closed;
    exit;
}
my $sock = connected();
my $bytes = pack "H*", $data;
$SIG{ALRM} = sub { exit };
alarm $limit;
for (1 .. $times) { defined syswrite $sock, $bytes or last }
while (sysread $sock, my $got, 65536) { print $got }
